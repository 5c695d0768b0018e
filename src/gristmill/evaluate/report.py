"""The exam's result as one Report: plain data that a page, a table or a test can show. Shapes are the classes below."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from gristmill.core.errors import ConfigError
from gristmill.core.intervals import wilson
from gristmill.core.records import Episode, Record, Report, Score, Task
from gristmill.core.stage import PassContext, PassResult
from gristmill.evaluate.exam import arm_name
from gristmill.evaluate.stages import ExamConfig
from gristmill.evaluate.stats import Pairs, difference, sign_test

MOST_QUESTIONS = 200
"""So many are shown with their answers; all of them are in the counts."""

Book = Literal["closed", "open"]


class Share(BaseModel):
    """How many of some questions were right, with Wilson's 95 % interval."""

    n: int
    right: int
    accuracy: float
    low: float
    high: float


class Arm(Share):
    """One candidate: a model, and how it sat the exam."""

    role: str
    book: Book
    tuned: bool  # closed book, and not the model that the others are compared with
    model: str  # identity of the weights
    truncated: int
    reasons: dict[str, int]
    documents: dict[str, Share]
    kinds: dict[str, Share]


class Comparison(BaseModel):
    """Two arms on the same questions: `difference` is accuracy(arm) - accuracy(against), interval by Newcombe's paired
    method; `p` by the exact McNemar test on the questions that only one of them got right."""

    arm: str
    against: str
    difference: float
    low: float
    high: float
    only_arm: int
    only_against: int
    p: float


class Given(BaseModel):
    """What one arm said to one question."""

    answer: str
    value: float
    reason: str
    finish: str
    episode: str


class Question(BaseModel):
    """One question with everyone's answers, and the training samples that hold its answer."""

    task: str
    question: str
    answers: list[str]  # the references
    document: str
    kind: str
    taught_by: list[str]
    leaked: bool
    arms: dict[str, Given]


class ExamData(BaseModel):
    """What stands in `Report.data` of an exam."""

    source: str
    n: int  # questions that every arm answered; all numbers are of these
    lost: int  # questions left out because one arm's answer failed
    max_tokens: int
    quantization: str | None  # that we gave all models; None: each as it is, or behind an address
    instruction: str
    temperature: float = 0.0
    leaked: int
    order: list[str]  # of the arms: stored objects lose theirs
    arms: dict[str, Arm]
    comparisons: list[Comparison]
    questions: list[Question]  # the first of them


def run(config: ExamConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """One Report. Its parents are the tasks: from them lineage leads on to episodes and back to documents."""
    records = list(records)
    tasks = [r for r in records if isinstance(r, Task)]
    if not tasks:
        raise ConfigError("no question of the exam was answered", "`gristmill show` with the rejects says why.")
    given = _given(records)
    sittings = [(role, False) for role in config.models] + [(role, True) for role in config.readers]
    arms = {
        arm_name(role, open_book=open_book): _arm(
            role, "open" if open_book else "closed", tasks, given[arm_name(role, open_book=open_book)], config.models[0]
        )
        for role, open_book in sittings
    }
    names = list(arms)
    data = ExamData(
        source=config.tasks or "held-out samples",
        n=len(tasks),
        lost=_asked(tasks[0]) - len(tasks),
        max_tokens=config.max_tokens,
        quantization=config.quantization if _local(config, ctx) else None,
        instruction=config.instruction,
        leaked=sum(bool(task.marks.get("leaked")) for task in tasks),
        order=names,
        arms=arms,
        comparisons=[_comparison(name, names[0], tasks, given) for name in names[1:]],
        questions=[_question(task, names, given) for task in tasks[:MOST_QUESTIONS]],
    )
    yield Report(title=f"Exam: {ctx.stage}", data=data.model_dump(mode="json"), parents=tuple(t.id for t in tasks))


def _asked(task: Task) -> int:
    """How many questions the exam has, as `exam.tasks` marked it."""
    asked = task.marks["asked"]
    if not isinstance(asked, int):
        raise ConfigError(f"the mark `asked` is no number: {asked!r}", "Let the report follow its own exam.")
    return asked


def _local(config: ExamConfig, ctx: PassContext) -> bool:
    """Whether the arms are weights on this machine: then all are, as `exam.tasks` saw to it."""
    return ctx.model(config.models[0], quantization=config.quantization).context is not None


@dataclass(frozen=True)
class _Sat:
    """An episode and its score."""

    episode: Episode
    score: Score

    @property
    def right(self) -> bool:
        return self.score.value == 1.0


_ByArm = Mapping[str, Mapping[str, _Sat]]


def _given(records: Sequence[Record]) -> _ByArm:
    """Arm -> task id -> what was said and how it was judged."""
    scores = {r.parents[0]: r for r in records if isinstance(r, Score)}
    given: defaultdict[str, dict[str, _Sat]] = defaultdict(dict)
    for episode in records:
        if isinstance(episode, Episode):
            given[episode.arm][episode.parents[0]] = _Sat(episode=episode, score=scores[episode.id])
    return given


def _arm(role: str, book: Book, tasks: Sequence[Task], sat: Mapping[str, _Sat], base: str) -> Arm:
    return Arm(
        **_share(tasks, sat).model_dump(),
        role=role,
        book=book,
        tuned=book == "closed" and role != base,
        model=next((s.episode.origin.model or "" for s in sat.values() if s.episode.origin), ""),
        truncated=sum(sat[task.id].episode.finish == "length" for task in tasks),
        reasons=dict(Counter(sat[task.id].score.reason for task in tasks).most_common()),
        documents=_shares(tasks, sat, [task.document or "?" for task in tasks]),
        kinds=_shares(tasks, sat, [task.kind for task in tasks]),
    )


def _share(tasks: Sequence[Task], sat: Mapping[str, _Sat]) -> Share:
    right, n = sum(sat[task.id].right for task in tasks), len(tasks)
    low, high = wilson(right, n)
    return Share(n=n, right=right, accuracy=right / n, low=low, high=high)


def _shares(tasks: Sequence[Task], sat: Mapping[str, _Sat], keys: Sequence[str]) -> dict[str, Share]:
    groups: defaultdict[str, list[Task]] = defaultdict(list)
    for task, key in zip(tasks, keys, strict=True):
        groups[key].append(task)
    return {key: _share(group, sat) for key, group in groups.items()}


def _comparison(arm: str, against: str, tasks: Sequence[Task], given: _ByArm) -> Comparison:
    both = Counter((given[arm][task.id].right, given[against][task.id].right) for task in tasks)
    pairs = Pairs(both[True, True], both[True, False], both[False, True], both[False, False])
    low, high = difference(pairs)
    return Comparison(
        arm=arm,
        against=against,
        difference=(pairs.first - pairs.second) / len(tasks),
        low=low,
        high=high,
        only_arm=pairs.first,
        only_against=pairs.second,
        p=sign_test(pairs.first, pairs.second),
    )


def _question(task: Task, names: Iterable[str], given: _ByArm) -> Question:
    taught = task.marks.get("taught_by")
    return Question(
        task=task.id,
        question=task.question,
        answers=list(task.answers),
        document=task.document,
        kind=task.kind,
        taught_by=[str(sample) for sample in taught] if isinstance(taught, list) else [],
        leaked=bool(task.marks.get("leaked")),
        arms={name: _said(given[name][task.id]) for name in names},
    )


def _said(sat: _Sat) -> Given:
    said, judged = sat.episode, sat.score
    return Given(answer=said.answer, value=judged.value, reason=judged.reason, finish=said.finish, episode=said.id)
