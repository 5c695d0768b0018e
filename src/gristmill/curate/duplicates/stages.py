"""The kinds of this family and their configs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from pydantic import Field

from gristmill.core import stage
from gristmill.core.records import Sample, Task
from gristmill.core.stage import InputPath, Role, Stage, StageConfig


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


class EmbedConfig(StageConfig):
    """Marks each sample with its vector by an embedding model, for `curate.semantic`."""

    model: Role = Field(description="An embedding model. Without this stage the local vectors are used")


class SemanticConfig(StageConfig):
    """Drops samples that say the same in other words; the first in input order stays. Numbers, names and short answers
    must agree, so that no other fact is taken for the same."""

    threshold: float = Field(0.9, gt=0, le=1, description="Cosine from which two samples say the same")


class EarlierConfig(StageConfig):
    """Drops what finished runs of other recipes in this workspace hold already, word for word or nearly."""

    threshold: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of word shingles from which two are the same"
    )
    shingle: int = Field(3, ge=1, le=10, description="Words in a shingle")
    near: bool = Field(True, description="Look for near-duplicates, not only for exact ones")
    runs: list[str] | None = Field(
        None,
        description="Only these runs, by id or name, [] for none; the last finished one of every other recipe when not "
        "given",
    )


def _stage(name: str, config: type[StageConfig], **more: Any) -> tuple[Stage, ...]:
    return (Stage(f"gristmill.curate.duplicates.{name}:run", config, (Sample,), (Sample,), **more),)


STAGES: stage.STAGES = {
    "curate.embed": _stage("embed", EmbedConfig),
    "curate.semantic": _stage("semantic", SemanticConfig, shape="pass", libraries=("wordllama",)),
    "curate.earlier": _stage("earlier", EarlierConfig, shape="pass", keep=False),
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
