"""What `evaluate` offers a recipe. Import-light."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gristmill.core.records import Checkpoint, Chunk, Episode, Report, Sample, Score, Task
from gristmill.core.stage import STAGES as Stages
from gristmill.core.stage import InputPath, Role, Stage, StageConfig


class ExamConfig(StageConfig):
    """The same questions to several models: same engine, same quantisation, greedy decoding, same words around them.

    Every model sits the exam closed book; those of `open_book` sit it again with the passage that holds the answer
    before them: how well one can do by reading, the reference that a taught model is measured against. All must have
    the same provider and context; local ones do without their prompt cache.
    """

    kind: Literal["evaluate.exam"]
    models: list[Role] = Field(min_length=1, description="Who sits the exam; the others are compared with the first")
    tasks: InputPath | None = Field(
        None, description='Exam file: {"question": …, "answers": [...]} a line. Without it: samples marked split=test'
    )
    open_book: list[Role] | None = Field(
        None, description="Who also sits it with the right passage at hand; the first model if not given, [] for none"
    )
    max_tokens: int = Field(64, ge=1, le=4096, description="Longest answer; longer ones are cut, graded and counted")
    quantization: Literal["q8_0", "f16"] | None = Field(
        "q8_0", description="Of all local models alike; null takes every model as it is"
    )
    instruction: str = Field("", description="System message, the same for everyone; none if empty")
    limit: int | None = Field(None, ge=1, description="Only the first so many questions")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for name in ("models", "open_book"):
            roles = getattr(self, name) or []
            if len(set(roles)) < len(roles):
                raise ValueError(f"{name} names a model twice")
        return self

    @property
    def readers(self) -> list[str]:
        return self.models[:1] if self.open_book is None else self.open_book

    @property
    def examines(self) -> tuple[str, ...]:
        return (self.tasks,) if self.tasks else ()


class AgreementConfig(StageConfig):
    """Labels and a classifier's guesses in, a report of how often they agree out: over the labels that nobody was
    trained on (split: test), with Wilson's 95 % interval, Cohen's kappa and macro-F1."""

    kind: Literal["evaluate.agreement"]


STAGES: Stages = {
    "evaluate.agreement": (
        Stage(
            code="gristmill.evaluate.agreement:run",
            config=AgreementConfig,
            takes=(Sample, Checkpoint),
            gives=(Report,),
            shape="pass",
        ),
    ),
    "evaluate.exam": (
        Stage(
            code="gristmill.evaluate.exam:tasks",
            config=ExamConfig,
            takes=(Task, Sample, Chunk, Checkpoint),
            gives=(Task,),
            shape="pass",
            part="tasks",
            inputs="gristmill.evaluate.exam:inputs",
        ),
        Stage(
            code="gristmill.evaluate.exam:answer",
            config=ExamConfig,
            takes=(Task,),
            gives=(Task, Episode, Score),
            part="answer",
        ),
        Stage(
            code="gristmill.evaluate.report:run",
            config=ExamConfig,
            takes=(Task, Episode, Score),
            gives=(Report,),
            shape="pass",
        ),
    ),
}
