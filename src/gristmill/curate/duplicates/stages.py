"""The kinds of this family and their configs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field

from gristmill.core import stage
from gristmill.core.records import Sample, Task
from gristmill.core.stage import InputPath, Stage, StageConfig


class DecontaminateConfig(StageConfig):
    """Drops training samples that an exam or a benchmark already holds."""

    exams: list[InputPath] | None = Field(
        None, description="Exam files; those of the recipe's own exams when not given, [] for none"
    )
    benchmarks: list[InputPath] = Field([], description="More files of questions: jsonl, json, csv, tsv, parquet, txt")
    column: str | None = Field(None, min_length=1, description="Their column of questions, if it has no usual name")
    ngram: int = Field(13, ge=5, le=50, description="Words in a row, not of the sample's source, that give one away")
    likeness: float = Field(
        0.8, gt=0, le=1, description="Dice's coefficient of two questions' words from which they are the same"
    )

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys([*(self.exams or []), *self.benchmarks]))

    def among(self, others: Sequence[StageConfig]) -> Self:
        if self.exams is not None:
            return self
        return self.model_copy(update={"exams": sorted({path for other in others for path in other.examines})})


STAGES: stage.STAGES = {
    "curate.decontaminate": (
        Stage(
            code="gristmill.curate.duplicates.decontaminate:run",
            config=DecontaminateConfig,
            takes=(Sample, Task),
            gives=(Sample,),
            shape="pass",
            inputs="gristmill.curate.duplicates.decontaminate:inputs",
        ),
    ),
}
