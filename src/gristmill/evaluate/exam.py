"""The exam: questions from a file or from held-out samples, answered by every arm, graded by each task's grader."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from gristmill.core.errors import ConfigError
from gristmill.core.records import Chunk, Record, Sample, Task
from gristmill.core.stage import Dropped, PassContext, PassResult, StepContext, samples
from gristmill.evaluate.sources import Library, Teaching
from gristmill.evaluate.stages import ExamConfig
from gristmill.tasks.graders import score
from gristmill.tasks.solo import attempt
from gristmill.tasks.task import question_key, read_tasks, tasks_of


def inputs(config: ExamConfig, base: Path) -> list[Path]:
    """The exam file is an input of the run like any document."""
    return [base / config.tasks] if config.tasks else []


def tasks(config: ExamConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """The questions, each with the passage an open-book candidate reads and the samples that may have taught it.

    Marks: `taught_by` (training samples that hold the answer, best first), `leaked` (training samples that ask the very
    same question; the report counts them) and `asked` (how many questions the exam has: a report that gets fewer says
    so).
    """
    _check_arms(config, ctx)
    records = list(records)
    library = Library([r for r in records if isinstance(r, Chunk)])
    teaching = Teaching([s for s in samples(records) if s.marks.get("split", "train") == "train"])
    asked: set[str] = set()
    chosen: list[Task] = []
    for task in _questions(config, records, ctx):
        if config.limit is not None and len(chosen) >= config.limit:
            break
        if question_key(task.question) in asked:
            yield Dropped(task, "question asked twice", task.question)
            continue
        asked.add(question_key(task.question))
        if config.readers and not task.context:
            passage = library.passage_for(task)
            if passage is None:
                yield Dropped(
                    task, "no passage for the open book", f"document {task.document!r} is not among the chunks"
                )
                continue
            task = task.model_copy(update={"context": passage})
        chosen.append(task)
    if not chosen:
        raise ConfigError(*_nothing_to_ask(config))
    for task in chosen:
        yield task.marked(taught_by=list(teaching.of(task)), leaked=list(teaching.asking(task)), asked=len(chosen))


def _check_arms(config: ExamConfig, ctx: PassContext) -> None:
    """The same engine and the same context for all, or the exam would compare these and not the models."""
    roles = dict.fromkeys([*config.models, *config.readers])
    contexts = {role: ctx.model(role, quantization=config.quantization).context for role in roles}
    if len(set(contexts.values())) > 1:
        said = ", ".join(f"{role} {f'has {n} tokens' if n else 'is behind an address'}" for role, n in contexts.items())
        raise ConfigError(
            f"the models of an exam sit it with the same engine and the same context, but {said}",
            "Give all of them the same `provider` and the same `context`, or examine them apart.",
        )


def _questions(config: ExamConfig, records: list[Record], ctx: PassContext) -> Iterator[Task]:
    """From the exam file if there is one; else tasks that another stage made, and the samples held out by a split."""
    if config.tasks:
        yield from read_tasks(ctx.base / config.tasks)
        return
    for record in records:
        if isinstance(record, Task):
            yield record
        elif isinstance(record, Sample) and record.marks.get("split") == "test":
            chunk = ctx.ancestor(record, Chunk)
            quoted = "\n".join(dict.fromkeys(quote.text for quote in record.quotes))
            yield from tasks_of(record, context=chunk.text if chunk else quoted)


def _nothing_to_ask(config: ExamConfig) -> tuple[str, str]:
    if config.tasks:
        return (
            f"no question of {config.tasks} has a passage for the open book",
            "Name the chunk stage in `needs`, write `context` into the exam, or set open_book: [].",
        )
    return (
        "the exam has no question",
        "Give `tasks:` an exam file, or name in `needs` a curate.split with `test:`.",
    )


async def answer(config: ExamConfig, task: Record, ctx: StepContext) -> list[Record]:
    """Every arm's attempt at one task and its score, behind the task itself."""
    if not isinstance(task, Task):
        raise ConfigError(f"an exam answers tasks, not a {task.type}", "Let the stage follow what makes tasks.")
    result: list[Record] = [task]
    sittings = [(role, False) for role in config.models] + [(role, True) for role in config.readers]
    for role, open_book in sittings:
        episode = await attempt(
            task,
            model=ctx.model(role, quantization=config.quantization),
            arm=arm_name(role, open_book=open_book),
            stage=ctx.stage,
            max_tokens=config.max_tokens,
            open_book=open_book,
            instruction=config.instruction,
        )
        verdict = score(task, episode)
        if episode.finish == "length":
            ctx.count(truncated=1)
        result += [episode, verdict]
    return result


def arm_name(role: str, *, open_book: bool) -> str:
    """How an arm is called in episodes and in the report."""
    return f"{role}, open book" if open_book else role
