"""The contract between the hall and the rooms. Two shapes, nothing else:

    async def run(config, record, ctx) -> list[Record]        a step: one record to some records; may ask a model
    def run(config, records, ctx) -> Iterable[Record]         a pass: needs the whole set

The records of a pass lie on disk: they have a length, and every iteration reads them again, one by one. A pass that
holds them all (`list(records)`) holds them in memory.

A stage author writes no concurrency, retry, cache, resume, progress, cancel or budget code. `raise Reject("reason")`
drops one record. A room lists its kinds in one plain dictionary, `STAGES`, in its import-light `stages.py`: kind -> the
stages it is made of, run in order (most are one; `ingest.read` lists files in a pass, then reads each in a step).
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from gristmill.core.ask import Model
from gristmill.core.prompt import Prompt
from gristmill.core.records import Record, Sample

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Means:
    """Says what a config field stands for: a model's role, a path, a folder below the run's exports/ that is its
    stage's alone, or `pace`: how fast and how safely, never what."""

    what: Literal["role", "path", "export", "pace"]


Role = Annotated[str, Means("role")]
"""Name of a model in the recipe's `models`."""

InputPath = Annotated[str, Means("path")]
"""A file or folder that must exist before the run; relative to the recipe's folder."""


PACE = Means("pace")
"""Marks a setting that does not change what comes out, so that changing it redoes nothing."""


class StageConfig(BaseModel):
    """What every stage entry of a recipe may say; each kind adds its own fields. Unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str = Field(description="What the stage does: room.kind, for example generate.qa")
    needs: list[str] | None = Field(None, description="Stages whose output it takes; the previous stage when not given")
    after: str | None = Field(None, description="With `extends`: place this stage after that one")
    max_failures: Annotated[float, PACE] = Field(
        0.05, ge=0, le=1, description="Share of failed records at which the run stops"
    )
    prompts: dict[str, InputPath] = Field(default_factory=dict, description="Own files in place of the kind's prompts")

    def given(self, kinds: tuple[type[Record], ...]) -> tuple[type[Record], ...]:
        """Which of the record types that its kind can give this entry gives."""
        return kinds

    @property
    def examines(self) -> tuple[str, ...]:
        """Files of questions that it asks a model, and that nothing should teach; relative to the recipe's folder."""
        return ()

    def among(self, others: Sequence[StageConfig]) -> Self:  # noqa: ARG002
        """This entry among all of its recipe: what it takes from their settings is filled in when the plan is made."""
        return self


@dataclass(frozen=True)
class Stage:
    """One stage of a kind: its config, what it takes and gives, and where its code is (imported only when it runs)."""

    code: str  # "gristmill.generate.qa:run"
    config: type[StageConfig]
    takes: tuple[type[Record], ...]  # nothing: it reads from outside
    gives: tuple[type[Record], ...]
    shape: Literal["step", "pass"] = "step"
    part: str = ""  # set on all but the last stage of a kind made of several
    prompts: tuple[str, ...] = ()  # names of files in the room's prompts/ folder
    prompt: str = ""  # "module:function" of (config, base) -> the prompt that the recipe itself brings
    fields: str = ""  # "module:function" of (config, base, before) -> names in what it gives; see `runs.plan`
    inputs: str = ""  # "module:function" of (config, base) -> list of files whose content the run depends on
    artifacts: bool = False  # a pass that writes a folder (weights): ctx.folder is kept with its result
    libraries: tuple[str, ...] = ()  # packages whose version decides what comes out
    modules: tuple[str, ...] = ()  # more code that decides what comes out: of other packages
    programs: tuple[str, ...] = ()  # programs of the system that decide it, by being there and by their version
    extras: tuple[str, ...] = ()  # of the package, without which it cannot run
    keep: bool = True  # False: made anew each run (it writes files into the run folder)

    def load(self) -> Callable[..., Any]:
        return load_code(self.code)


STAGES = dict[str, tuple[Stage, ...]]


def load_code(code: str) -> Callable[..., Any]:
    """The function that our own `module:function` names. Never given a string from a recipe or a request."""
    module, _, name = code.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def room_of(module: str) -> str:
    """The package that holds a module's prompts and all code beside it: a room of ours, its families included; of a
    plug-in, the module's own package."""
    return ".".join(module.split(".")[:2]) if module.startswith("gristmill.") else module.rpartition(".")[0]


class StepContext(Protocol):
    """What a step may reach: its record's ancestors, models, prompts, a seeded generator. Nothing else."""

    stage: str
    seed: int
    base: Path  # paths in the recipe are relative to this

    def rng(self, record: Record, *salt: object) -> random.Random:
        """A generator that depends on the recipe's seed, the stage, the record and the salt alone."""
        ...

    def ancestor(self, record: Record, kind: type[R]) -> R | None:
        """The nearest ancestor of that type (breadth first), the record itself not included."""
        ...

    def ancestors(self, record: Record, kind: type[R]) -> list[R]:
        """All ancestors of that type, the nearest first (breadth first), each once."""
        ...

    def model(self, role: str, *, quantization: str | None = None) -> Model: ...

    def prompt(self, name: str) -> Prompt: ...

    def prompts_of(self, record: Record) -> tuple[Prompt, ...]:
        """The prompts whose examples a record may repeat: all of the stages that made it and its ancestors, by their
        origins. A stage may ask with several prompts for one record, and an origin names one."""
        ...

    def count(self, **amounts: float) -> None:
        """Add to this stage's counters in the funnel."""
        ...


@dataclass(frozen=True)
class Earlier:
    """What an earlier run of the workspace came to; `digest` stands for its records, which are read from disk."""

    name: str
    digest: str
    records: Iterable[Record]


class PassContext(StepContext, Protocol):
    """A pass sees the whole set, and may keep files in `folder`, which survives a kill and is handed back on resume."""

    folder: Path
    run_folder: Path
    cache: Path  # derived files that any run may use again, named by content

    def weights(self, role: str) -> Any:
        """`models.Weights` of a role: where its weights, tokenizer and template lie."""
        ...

    def calls(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """The stored answers under some keys (`Origin.calls`) with what was asked; unknown keys are left out."""
        ...

    def earlier(self, runs: Sequence[str] | None) -> list[Earlier]:
        """Runs of this workspace that hold samples: those named, or the last of every other recipe before this one."""
        ...

    def stopping(self) -> bool:
        """True once a person or a budget asked to stop; a long pass saves and raises Cancelled."""
        ...

    def progress(self, done: float, total: float, **values: float | str) -> None: ...

    def metric(self, **values: float | int | str) -> None:
        """One line of a curve (loss, learning rate, ...), kept in the events and in the report."""
        ...

    def warn(self, message: str) -> None:
        """What a person should hear of at once, though the run goes on: in the terminal, the events and the log."""
        ...


@runtime_checkable
class Digested(Protocol):
    """The records of a pass, where they lie on disk: one hash stands for all of them."""

    @property
    def digest(self) -> str: ...


@dataclass(frozen=True)
class Dropped:
    """Rejects of a pass: yielded among its records, so that every drop has its reason."""

    record: Record
    reason: str
    detail: str = ""


PassResult = Iterable[Record | Dropped]


def samples(records: Iterable[Record]) -> list[Sample]:
    """The samples among some records, in order."""
    return [r for r in records if isinstance(r, Sample)]
