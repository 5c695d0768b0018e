"""What a tracker is to a run: somewhere else to watch it. It gets every metric, and never a say in the run.

    sinks:
      tensorboard: {}
      mlflow: {uri: "http://127.0.0.1:5000", experiment: handbook}

A sink is loud before the run starts: what is not installed or cannot be reached is a ConfigError, at `check` too. Once
the run goes on nothing that a sink does can hurt it (`runs.following`). Another package brings one by the entry point
`gristmill.sinks`: a dictionary like `kinds.SINKS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict


class SinkConfig(BaseModel):
    """What a sink's entry in a recipe may say. None of it changes what a run is or gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class About:
    """The run that is to be followed."""

    id: str
    name: str
    recipe: dict[str, Any]  # resolved, without a secret in it
    base: Path  # paths in the recipe are relative to this
    folder: Path  # for the sink alone, in the run's folder; an earlier attempt of the same run may have left files


@dataclass(frozen=True)
class Point:
    """What a stage said at a step; without a step, what it said of itself once."""

    stage: str
    step: int | None
    time: float  # seconds since 1970
    values: Mapping[str, float | int | str]

    @property
    def numbers(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.values.items() if not isinstance(value, str)}

    @property
    def words(self) -> dict[str, str]:
        return {name: value for name, value in self.values.items() if isinstance(value, str)}


class Sink(Protocol):
    """An open tracker. It is used by one thread; whatever it raises ends it, and the run goes on without it."""

    def write(self, points: Sequence[Point]) -> None:
        """Take some points, oldest first. What returns is delivered: it is not offered again, by any attempt."""
        ...

    def close(self, state: str, artifacts: Mapping[str, Path]) -> None:
        """The attempt ended: finished, incomplete, paused, cancelled or failed. `artifacts`: name -> a small file (the
        report, and what each training left: mask report, plan, metrics, samples)."""
        ...


@dataclass(frozen=True)
class SinkKind:
    """One kind of sink: its config, and where its code is, imported only by a recipe that names it."""

    config: type[SinkConfig]
    open: str  # "module:function" of (config, About) -> Sink
    check: str = ""  # "module:function" of (config), which raises ConfigError where the run could not start
    extra: str = ""  # of the package, without which it cannot be opened
