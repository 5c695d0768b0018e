"""The exam from questions to report, with models whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gristmill.core.ask import Answer, Usage
from gristmill.core.errors import ConfigError
from gristmill.core.records import Chunk, Episode, Message, Record, Report, Sample, Score, Task, from_row
from gristmill.core.stage import Dropped
from gristmill.evaluate import exam, report
from gristmill.evaluate.stages import STAGES, ExamConfig
from gristmill.tasks.task import write_tasks


@dataclass
class Reader:
    """A model that knows some answers, and otherwise copies what is put before it until it is cut off."""

    role: str
    knows: dict[str, str]
    asked: list[list[Message]] = field(default_factory=list)
    identity: str = "local:abc"
    context: int | None = 2048

    async def chat(self, messages: Sequence[Message], *, max_tokens: int, temperature: float = 0.0, **_: Any) -> Answer:
        assert temperature == 0.0
        self.asked.append(list(messages))
        above, _, question = messages[-1].content.rpartition("\n\n")
        text = self.knows.get(question) or above
        finish = "length" if above and len(text.split()) > max_tokens else "stop"
        return Answer(text, finish, Usage(10, 3), key=f"{self.role}-{len(self.asked)}", model=self.identity)


@dataclass
class Desk:
    """What the hall gives a stage here: models by role, ancestors by id, counters."""

    models: dict[str, Reader]
    base: Path = Path()
    known: dict[str, Record] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    quantized: set[str | None] = field(default_factory=set)
    stage: str = "exam"

    def model(self, role: str, *, quantization: str | None = None) -> Reader:
        self.quantized.add(quantization)
        return self.models[role]

    def ancestor(self, record: Record, kind: type[Record]) -> Record | None:
        return next((self.known[p] for p in record.parents if isinstance(self.known.get(p), kind)), None)

    def count(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.counts[name] = self.counts.get(name, 0) + amount


def chunk(path: str, text: str) -> Chunk:
    return Chunk(path=path, title=path, text=text, start=0, end=len(text), tokens=9, language="en")


def qa(question: str, answer: str, *, split: str | None = None, parents: tuple[str, ...] = ()) -> Sample:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer, train=True))
    sample = Sample(form="chat", kind="qa", messages=messages, parents=parents)
    return sample.marked(split=split) if split else sample


GUILD = chunk("guild.md", "The guild was founded by Mara Venn.")
BELLS = chunk("guild.md", "Twelve bells hang in the tower of Oakby.")
RIVER = chunk("river.md", "The river Ash has twelve bridges.")
WHO = Task(question="Who founded the guild?", answers=("Mara Venn",), kind="person", document="docs/guild.md")
BELL = Task(question="How many bells hang there?", answers=("12",), kind="number", document="guild.md")


def config(**more: Any) -> ExamConfig:
    return ExamConfig.model_validate({"kind": "evaluate.exam", "models": ["student", "tuned"], **more})


def desk(tmp_path: Path, **more: Any) -> Desk:
    write_tasks(tmp_path / "exam.jsonl", [WHO, BELL])
    student = Reader("student", {})
    tuned = Reader("tuned", {WHO.question: "Mara Venn", BELL.question: "12 or 13"})
    return Desk({"student": student, "tuned": tuned}, base=tmp_path, **more)


async def sit(settings: ExamConfig, records: list[Record], ctx: Any) -> list[Record]:
    tasks = [r for r in exam.tasks(settings, records, ctx) if not isinstance(r, Dropped)]
    return [made for task in tasks for made in await exam.answer(settings, task, ctx)]


async def test_from_questions_to_report(tmp_path: Path) -> None:
    settings, ctx = config(tasks="exam.jsonl", max_tokens=6, instruction="Be brief."), desk(tmp_path)
    taught = qa("Which woman founded the guild?", "Mara Venn", split="train")
    leaked = qa("how many bells hang there", "twelve", split="train")
    records = await sit(settings, [RIVER, GUILD, BELLS, taught, leaked], ctx)
    (made,) = report.run(settings, records, ctx)
    assert isinstance(made, Report)
    data: Any = from_row(made.to_row()).data  # type: ignore[attr-defined]

    assert data["order"] == ["student", "tuned", "student, open book"]
    arms = data["arms"]
    assert [(arms[a]["right"], arms[a]["n"], arms[a]["truncated"]) for a in data["order"]] == [
        (0, 2, 0),
        (1, 2, 0),
        (2, 2, 2),
    ]
    assert (data["n"], data["lost"], data["quantization"]) == (2, 0, "q8_0")
    assert arms["tuned"]["low"] < 0.5 < arms["tuned"]["high"]
    assert arms["tuned"]["tuned"] and not arms["student"]["tuned"] and not arms["student, open book"]["tuned"]
    assert arms["tuned"]["reasons"] == {"right": 1, "several candidates": 1}
    assert arms["student"]["reasons"] == {"empty": 2}
    assert arms["tuned"]["kinds"]["person"]["right"] == 1
    assert arms["tuned"]["documents"]["guild.md"]["n"] == 1
    assert [(c["arm"], c["against"], c["only_arm"], c["p"]) for c in data["comparisons"]] == [
        ("tuned", "student", 1, 1.0),
        ("student, open book", "student", 2, 0.5),
    ]
    first, second = data["questions"]
    assert first["taught_by"] == [taught.id]
    assert (first["leaked"], second["leaked"], data["leaked"]) == (False, True, 1)
    assert first["arms"]["tuned"] | {"episode": ""} == {
        "answer": "Mara Venn", "value": 1.0, "reason": "right", "finish": "stop", "episode": "",
    }  # fmt: skip
    assert ctx.quantized == {"q8_0"}
    assert ctx.counts == {"truncated": 2}


async def test_all_arms_are_asked_in_the_same_words(tmp_path: Path) -> None:
    settings, ctx = config(tasks="exam.jsonl", instruction="Be brief."), desk(tmp_path)
    await sit(settings, [GUILD, BELLS, RIVER], ctx)
    student, tuned = ctx.models["student"], ctx.models["tuned"]
    closed, opened = student.asked[0], student.asked[1]
    assert (
        tuned.asked[0]
        == closed
        == [Message(role="system", content="Be brief."), Message(role="user", content=WHO.question)]
    )
    assert opened[-1].content == f"{GUILD.text}\n\n{WHO.question}"
    assert student.asked[3][-1].content == f"{BELLS.text}\n\n{BELL.question}"


async def test_a_question_that_one_arm_lost_is_left_out_and_counted(tmp_path: Path) -> None:
    settings, ctx = config(tasks="exam.jsonl"), desk(tmp_path)
    first, _ = exam.tasks(settings, [GUILD, BELLS], ctx)
    (made,) = report.run(settings, await exam.answer(settings, first, ctx), ctx)  # type: ignore[arg-type]
    assert isinstance(made, Report)
    assert (made.data["n"], made.data["lost"]) == (1, 1)


@pytest.mark.parametrize("other", [512, None])
def test_arms_of_another_context_or_provider_are_refused(tmp_path: Path, other: int | None) -> None:
    ctx: Any = desk(tmp_path)
    ctx.models["tuned"].context = other
    with pytest.raises(ConfigError, match=r"tuned (has 512 tokens|is behind an address)"):
        next(iter(exam.tasks(config(tasks="exam.jsonl"), [GUILD, BELLS], ctx)))
    assert list(exam.tasks(config(tasks="exam.jsonl", models=["tuned"]), [GUILD, BELLS], ctx))  # no one to differ from


async def test_models_behind_an_address_have_no_quantisation_of_ours(tmp_path: Path) -> None:
    settings, ctx = config(tasks="exam.jsonl"), desk(tmp_path)
    for model in ctx.models.values():
        model.context = None
    (made,) = report.run(settings, await sit(settings, [GUILD, BELLS], ctx), ctx)  # type: ignore[arg-type]
    assert isinstance(made, Report) and made.data["quantization"] is None


async def test_lineage_leads_from_score_to_task(tmp_path: Path) -> None:
    records = await sit(config(tasks="exam.jsonl"), [GUILD, BELLS], desk(tmp_path))
    by_id = {record.id: record for record in records}
    scores = [record for record in records if isinstance(record, Score)]
    assert len(scores) == 6
    for score in scores:
        episode = by_id[score.parents[0]]
        assert isinstance(episode, Episode) and isinstance(by_id[episode.parents[0]], Task)
        assert episode.origin and episode.origin.model == "local:abc" and episode.origin.calls


async def test_held_out_samples_are_the_exam_where_no_file_is_given() -> None:
    held = qa(WHO.question, "Mara Venn", split="test", parents=(GUILD.id,))
    again = qa("who founded the guild", "Mara Venn", split="test", parents=(GUILD.id,))
    taught, loose = qa("Founder of the guild?", "Mara Venn", split="train"), qa("Q?", "A", split="validation")
    ctx: Any = Desk({"student": Reader("student", {}), "tuned": Reader("tuned", {})}, known={GUILD.id: GUILD})
    made = list(exam.tasks(config(), [taught, held, again, loose], ctx))
    assert sorted(type(r).__name__ for r in made) == ["Dropped", "Task"]
    (task,) = (r for r in made if not isinstance(r, Dropped))
    assert isinstance(task, Task)
    assert (task.context, task.parents, task.marks["taught_by"]) == (GUILD.text, (held.id,), [taught.id])


def test_a_limit_takes_the_first_and_a_missing_passage_is_said(tmp_path: Path) -> None:
    ctx: Any = desk(tmp_path)
    assert len(list(exam.tasks(config(tasks="exam.jsonl", limit=1), [GUILD], ctx))) == 1
    assert len(list(exam.tasks(config(tasks="exam.jsonl", open_book=[]), [], ctx))) == 2
    with pytest.raises(ConfigError, match="passage"):
        list(exam.tasks(config(tasks="exam.jsonl"), [RIVER], ctx))
    with pytest.raises(ConfigError, match="no question"):
        list(exam.tasks(config(), [], ctx))


def test_the_exam_file_is_an_input_and_the_config_is_strict(tmp_path: Path) -> None:
    assert exam.inputs(config(tasks="exam.jsonl"), tmp_path) == [tmp_path / "exam.jsonl"]
    assert exam.inputs(config(), tmp_path) == []
    with pytest.raises(ValueError, match="twice"):
        config(models=["a", "a"])
    with pytest.raises(ValueError, match="extra"):
        config(temperature=1)
    assert [stage.load() for stage in STAGES["evaluate.exam"]] == [exam.tasks, exam.answer, report.run]
