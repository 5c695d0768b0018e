"""The kinds of this family and their configs."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gristmill.core import stage
from gristmill.core.records import Chunk, Document, Draft, Sample
from gristmill.core.stage import Stage
from gristmill.generate.config import WriterConfig

Strategy = Literal[
    "retell", "self_test", "outline", "timeline", "who_is_who", "numbers", "causes", "compare", "explain",
    "memory_aids", "backwards", "situations",
]  # fmt: skip


class ReadingConfig(WriterConfig):
    """What the kinds that write texts to read have in common."""

    tokens: int = Field(200, ge=40, le=8000, description="Longest text that is written")
    passage: int = Field(
        1200,
        ge=200,
        le=400_000,
        description="Most characters of the source that the writer is shown with one call; good writers can use more",
    )
    temperature: float = Field(0.7, ge=0, le=2, description="Sampling temperature; at 0 small writers copy and loop")
    about: str | None = Field(
        None, min_length=1, max_length=500, description="What the documents are about; told to the writer as the topic"
    )
    context: bool = Field(False, description="Begin each text with a line that says where its source stands")


class EntigraphConfig(ReadingConfig):
    """Chunks or documents in, texts out on how two or three of the things that they name are connected."""

    kind: Literal["generate.entigraph"]
    entities: int = Field(
        8,
        ge=2,
        le=64,
        description="Most entities of a record. structured: named by the model and found in the source by code. "
        "line: names, by code alone",
    )
    pairs: int = Field(6, ge=0, le=2000, description="Most pairs of entities that are written about; drawn by seed")
    triples: int = Field(2, ge=0, le=2000, description="Most triples of entities that are written about")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not self.pairs and not self.triples:
            raise ValueError("pairs and triples are both 0: nothing would be written")
        if self.triples and self.entities < 3:
            raise ValueError("triples need at least 3 entities")
        return self


class ActiveReadingConfig(ReadingConfig):
    """Chunks or documents in, study notes out, each made in another way that suits what is studied."""

    kind: Literal["generate.active_reading"]
    strategies: list[Strategy] = Field(
        list(Strategy.__args__),  # type: ignore[attr-defined]
        description="The catalogue to choose from. structured: the model chooses. line: drawn by seed",
    )
    more: dict[str, str] = Field(default_factory=dict, description="Strategies of your own: name -> what to write")
    per_record: int = Field(
        4, ge=0, le=64, description="Strategies that are followed for a record, or for each `passage` of a longer one"
    )
    own: int = Field(0, ge=0, le=16, description="structured: strategies besides that the model makes up, at most")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.own and self.ask == "line":
            raise ValueError("own belongs to ask: structured; with ask: line name strategies of your own in `more`")
        if self.per_record and not self.strategies and not self.more:
            raise ValueError("there is no strategy to choose from: name some in `strategies` or `more`")
        if not self.per_record and not self.own:
            raise ValueError("per_record and own are both 0: nothing would be written")
        return self


STAGES: stage.STAGES = {
    "generate.entigraph": (
        Stage(
            code="gristmill.generate.pretrain.entigraph:entities",
            config=EntigraphConfig,
            takes=(Chunk, Document),
            gives=(Draft,),
            part="entities",
            prompts=("pretrain_entities",),
        ),
        Stage(
            code="gristmill.generate.pretrain.entigraph:run",
            config=EntigraphConfig,
            takes=(Draft,),
            gives=(Sample,),
            prompts=("pretrain_entigraph",),
        ),
    ),
    "generate.active_reading": (
        Stage(
            code="gristmill.generate.pretrain.active_reading:strategies",
            config=ActiveReadingConfig,
            takes=(Chunk, Document),
            gives=(Draft,),
            part="strategies",
            prompts=("pretrain_strategies",),
        ),
        Stage(
            code="gristmill.generate.pretrain.active_reading:run",
            config=ActiveReadingConfig,
            takes=(Draft,),
            gives=(Sample,),
            prompts=("pretrain_active_reading",),
        ),
    ),
}
