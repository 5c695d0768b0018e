"""What a recipe may say about local scores."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gristmill.core.stage import StageConfig

Score = Literal[
    "words", "sentence", "lix", "repetition", "variety", "symbols", "capitals", "function", "language"
]  # fmt: skip


class Bounds(BaseModel):
    """What a score may be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("give at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError("at_least is more than at_most: nothing would pass")
        return self

    def hold(self, value: float) -> bool:
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)


class ScoreConfig(StageConfig):
    """Marks each sample with local scores (`scores`), and drops those outside the bounds."""

    of: Literal["answer", "all"] = Field(
        "answer", description="What is scored: the answer (of a text, all) or all said"
    )
    keep: dict[Score, Bounds] = Field(
        default_factory=dict, description="Bounds by score; one that a sample does not have (function words of an "
        "unlisted language) holds",
    )  # fmt: skip
