"""What a recipe may say about judges: rubrics, votes, who is judged at all."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gristmill.core.stage import Role, StageConfig

Sight = Literal["sample", "question", "answer", "source"]
CheckName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def _described(value: Any) -> Any:
    """`[good, poor]` is choices without a description."""
    return dict.fromkeys(value, "") if isinstance(value, list) else value


class Rubric(BaseModel):
    """One question put to a judge, the choices it has, and which of them pass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str = Field(min_length=1, description="What the judge is asked")
    choices: Annotated[dict[str, str], BeforeValidator(_described)] = Field(
        min_length=2, max_length=12, description="What it may choose: a list, or choice -> what it means"
    )
    passes: list[str] = Field(min_length=1, description="The choices that pass")
    sees: list[Sight] = Field(
        ["sample"],
        min_length=1,
        description="What the judge is shown. sample: all that is said. source: the chunks it descends from, or its "
        "quotes",
    )

    @model_validator(mode="after")
    def _passes_are_choices(self) -> Self:
        if unknown := [choice for choice in self.passes if choice not in self.choices]:
            raise ValueError(f"`passes` names no choice: {', '.join(unknown)}")
        if len(set(self.passes)) == len(self.choices):
            raise ValueError("every choice passes: nothing is judged")
        return self


RUBRICS: dict[str, Rubric] = {
    "sound": Rubric(
        question="Is this a question that a person could put to an expert, without anything beside it?",
        choices={
            "sound": "it asks for one thing, and says what it is about",
            "unclear": "what is asked, or about whom or what, cannot be told",
            "leaning": "it leans on a text that is not there",
            "empty": "it is no question, asks for nothing, or says its own answer",
        },
        passes=["sound"],
        sees=["question"],
    ),
    "relevant": Rubric(
        question="Does the answer answer this very question?",
        choices={
            "relevant": "it answers what was asked",
            "partly": "it leaves out part of what was asked, or wanders off",
            "irrelevant": "it answers something else, or nothing",
        },
        passes=["relevant"],
        sees=["question", "answer"],
    ),
    "accurate": Rubric(
        question="Is the answer right by the source? Only the source counts, not what you know.",
        choices={
            "accurate": "everything the answer says stands in the source or follows from it",
            "partly": "some of it does, some of it is not there or differs",
            "wrong": "the source says otherwise, or nothing of the kind",
        },
        passes=["accurate"],
        sees=["question", "answer", "source"],
    ),
}
"""The checks that come with `curate.judge`. "Partly" passes none of them."""

CHUNK_RUBRICS: dict[str, Rubric] = {
    "teaches": Rubric(
        question="Does this piece of a document state facts that someone could be asked about later?",
        choices={
            "facts": "whole sentences on persons, things, places, events, or on how something is done",
            "contents": "a table of contents, an index, a list of references or of names",
            "notice": "a legal notice, a licence, an imprint, a preface, thanks or an advertisement",
            "exercise": "tasks or questions without their answers",
            "debris": "broken lines, page numbers, code or numbers without words around them",
        },
        passes=["facts"],
    )
}
"""The check that comes with `curate.judge_chunks`."""


class Band(BaseModel):
    """The samples whose mark lies between two values: those that a cheaper score could not decide."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mark: str = Field(
        min_length=1, description="A mark that holds a number: judge_sound_share, scores.variety (of curate.score) …"
    )
    low: float = Field(description="From here")
    high: float = Field(description="To here, both included")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.low > self.high:
            raise ValueError("`low` lies above `high`")
        return self


class JudgeConfig(StageConfig):
    """A model judges each sample, one check at a time, by votes; what does not pass is dropped, or only marked.

    Marks: `judge_<check>` (the choice most votes took), `judge_<check>_share` (of the votes cast, those that pass) and
    `judge` (whether each check passed, and every vote with its reason and its call).
    """

    built_in: ClassVar[dict[str, Rubric]] = RUBRICS

    kind: Literal["curate.judge", "curate.judge_chunks"]
    model: Role = Field(description="The role that judges; better not the one that wrote")
    checks: list[CheckName] = Field(
        ["sound", "relevant", "accurate"],
        min_length=1,
        description="In this order: sound, relevant, accurate, or names of own `rubrics`",
    )
    rubrics: dict[CheckName, Rubric] = Field(default_factory=dict, description="Own checks: name -> rubric")
    votes: int = Field(3, ge=1, le=31, description="Times each check is asked; fewer once nothing can change")
    share: float = Field(0.5, gt=0, le=1, description="Least share of the votes that must pass")
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature; votes at 0 are one vote")
    reasons: bool = Field(True, description="Each vote says why before it chooses")
    only: Band | None = Field(None, description="Judge only samples with this mark within these bounds, or without it")
    sampled: float = Field(1.0, gt=0, le=1, description="Share of the samples that is judged; the others pass")
    drop: bool = Field(True, description="false: mark only; what no vote could judge is dropped still")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        known = {**self.built_in, **self.rubrics}
        if unknown := [name for name in self.checks if name not in known]:
            raise ValueError(f"no rubric is called {', '.join(unknown)}; known: {', '.join(known)}")
        if unused := [name for name in self.rubrics if name not in self.checks]:
            raise ValueError(f"`checks` does not name {', '.join(unused)}")
        if len(set(self.checks)) < len(self.checks):
            raise ValueError("a check is named twice")
        if self.votes > 1 and not self.temperature:
            raise ValueError("several votes at temperature 0 are one vote; set `temperature`, or votes: 1")
        return self

    def rubric(self, check: str) -> Rubric:
        return self.rubrics.get(check) or self.built_in[check]


class ChunkJudgeConfig(JudgeConfig):
    """As `curate.judge`, of chunks, before anything is paid for them: whether there is something in them to teach."""

    built_in: ClassVar[dict[str, Rubric]] = CHUNK_RUBRICS

    checks: list[CheckName] = Field(
        ["teaches"], min_length=1, description="In this order: teaches, or names of own `rubrics`"
    )

    @model_validator(mode="after")
    def _sees_the_chunk(self) -> Self:
        if wrong := [name for name in self.checks if self.rubric(name).sees != ["sample"]]:
            raise ValueError(f"a chunk has no question, answer or source; {', '.join(wrong)} must see [sample]")
        return self


class CalibrationConfig(StageConfig):
    """How far a judge agrees with people: samples that both judged, compared; a report with intervals."""

    kind: Literal["curate.calibration"]
    checks: list[CheckName] | None = Field(
        None, min_length=1, description="The judge's checks to compare; all that its marks hold when not given"
    )
