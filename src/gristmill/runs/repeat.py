"""`repeat:` of a recipe: a block of stages that runs again, round after round, until a target is met.

    repeat: {stages: [gaps, questions, coverage], times: 4, until: coverage.covered >= 0.95}

The plan holds every round from the start: `gaps`, `gaps.2`, `gaps.3`, … What a stage of the block takes of the block is
said by name: `x` is of this round, `x.before` of all rounds before it (of none in the first), `x.all` of both. Outside
of the block `x` stands for all rounds.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, field_validator

SIGNS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_UNTIL = re.compile(r"([a-z][a-z0-9_-]*)\.(\S+)\s*(>=|<=|==|>|<)\s*(-?\d+(?:\.\d+)?)")

SKIPPED = "skipped"
"""In an output's `stage.json`: why its stage was not needed in this round."""

BEFORE, ALL = "before", "all"
"""Rounds that a stage of the block may take besides its own."""


class Target(NamedTuple):
    """When the rounds are over: a number that a stage of the block gives, beside one that is said."""

    stage: str
    metric: str
    sign: str
    number: float

    def met(self, value: float) -> bool:
        return SIGNS[self.sign](value, self.number)


class Repeat(BaseModel):
    """Stages that run again. The target is looked at after each round."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stages: list[str] = Field(min_length=1, description="Stages that stand together in the recipe")
    times: int = Field(ge=1, le=100, description="Rounds, at most")
    until: str | None = Field(None, description="Target after which no more rounds run: STAGE.METRIC >= NUMBER")

    @field_validator("until")
    @classmethod
    def _readable(cls, until: str | None) -> str | None:
        if until is not None and not _UNTIL.fullmatch(until.strip()):
            raise ValueError("write it as STAGE.METRIC >= NUMBER")
        return until

    @property
    def target(self) -> Target | None:
        found = _UNTIL.fullmatch(self.until.strip()) if self.until else None
        return Target(found[1], found[2], found[3], float(found[4])) if found else None

    def sources(self, need: str, *, at: int) -> list[str]:
        """The stages that a name in `needs` stands for, in the order of their rounds; `at`: the round of the stage that
        names it, 0 outside of the block."""
        name, _, which = need.partition(".")
        if name not in self.stages:
            return [name]
        if not at:
            return [called(name, number) for number in range(1, self.times + 1)]
        first, last = {BEFORE: (1, at - 1), ALL: (1, at)}.get(which, (at, at))
        return [called(name, number) for number in range(first, last + 1)]


def called(name: str, number: int) -> str:
    """A stage's name in a round: the recipe's own in the first."""
    return name if number < 2 else f"{name}.{number}"
