"""The kinds of this family and their configs."""

from __future__ import annotations

from pydantic import Field

from gristmill.core import stage
from gristmill.core.records import Chunk, Fact, Report, Sample
from gristmill.core.stage import Stage, StageConfig


class ExercisedConfig(StageConfig):
    """What counts as exercised: a sentence of a chunk, or a fact."""

    samples: int = Field(1, ge=1, description="Training samples that must exercise one before it is covered")
    kinds: list[str] | None = Field(None, description="Kinds of samples that count; all when not given")
    share: float = Field(
        0.6, ge=0, le=1, description="Of a sample that quotes several sentences: share of one's words it must hold"
    )


class CoverageConfig(ExercisedConfig):
    """Samples with chunks or facts in, a report out: what of every document is exercised by how many samples."""


class GapsConfig(ExercisedConfig):
    """Samples with chunks or facts in; out the facts that are not covered, and the chunks that hold such sentences,
    marked with them, so that writers ask about these alone."""

    most: int | None = Field(None, ge=1, description="Sentences of a chunk at once, drawn anew in each round")


STAGES: stage.STAGES = {
    "curate.coverage": (
        Stage(
            code="gristmill.curate.coverage.measure:run",
            config=CoverageConfig,
            takes=(Sample, Chunk, Fact),
            gives=(Report,),
            shape="pass",
        ),
    ),
    "curate.gaps": (
        Stage(
            code="gristmill.curate.coverage.gaps:run",
            config=GapsConfig,
            takes=(Sample, Chunk, Fact),
            gives=(Chunk, Fact),
            shape="pass",
        ),
    ),
}
