"""Make a run again from its manifest and compare: does the same recipe, on the same inputs, give the same here?

Everything is made anew in a scratch workspace: every step, pass and training. Only the answers of models are taken from
the run's store, for they were paid for and nobody promises to give them twice; no model is asked, and an answer that
the store does not hold is an error that names it. Then records, rejects and the files of checkpoints are compared, one
by one, with those in the run's folder.

A stage whose inputs, prompts or weights have changed cannot give the same and is not run, nor what follows it. One
whose code, libraries or machine have changed may, and is.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gristmill.core.errors import Cancelled, CheckpointError, GristmillError, InputError
from gristmill.core.events import Listener
from gristmill.core.store import Store
from gristmill.core.store.sqlite import SqliteStore
from gristmill.runs.changes import Changes, changes_of, surroundings
from gristmill.runs.differences import Difference, output_difference, unkept, weights_difference
from gristmill.runs.earlier import seen_otherwise
from gristmill.runs.execute import Outcome, execute
from gristmill.runs.folder import Output, RunFolder
from gristmill.runs.identity import Identities
from gristmill.runs.plan import Node, Plan, plan_recipe
from gristmill.runs.recipe import validate
from gristmill.runs.source import read_source
from gristmill.runs.workspace import Workspace

SCRATCH = ".verify-"
"""How scratch workspaces are called, below the run's own."""

IDENTICAL, DIFFERS, NOT_HERE = "identical", "differs", "not reproducible here"


@dataclass(frozen=True)
class Verdict:
    """What became of one stage when it was made again."""

    stage: str
    kind: str
    verdict: str  # identical | differs | not reproducible here
    records: int = 0
    rejects: int = 0
    files: int = 0  # of its checkpoint
    why: tuple[str, ...] = ()
    first: Difference | None = None


@dataclass(frozen=True)
class Verified:
    """All verdicts, and what is not as it was when the run was made."""

    run: str
    stages: tuple[Verdict, ...]
    changes: Changes
    scratch: Path | None = None  # kept

    @property
    def identical(self) -> bool:
        return all(stage.verdict == IDENTICAL for stage in self.stages)

    def error(self) -> CheckpointError | None:
        """Why the run is not what it was; None where it is."""
        other = [stage for stage in self.stages if stage.verdict != IDENTICAL]
        if not other:
            return None
        first = other[0]
        why = "; ".join(first.why) or (first.first.words() if first.first else "")
        return CheckpointError(
            f"run {self.run}: {len(other)} of {len(self.stages)} stages could not be made again as they were; "
            f"the first is {first.stage}, {first.verdict}: {why}",
            "`gristmill run` with its recipe makes a run of what is there now.",
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "identical": self.identical,
            "stages": [asdict(stage) for stage in self.stages],
            "changes": asdict(self.changes),
            "scratch": str(self.scratch) if self.scratch else None,
        }


def verify(
    workspace: Workspace,
    folder: RunFolder,
    *,
    stage: str | None = None,
    keep: bool = False,
    listeners: tuple[Listener, ...] = (),
    stop: threading.Event | None = None,
) -> Verified:
    """Every stage of a run, or all that `stage` rests on. InputError where these are not finished. With `keep`, what
    was made for it stays."""
    plan = _plan(folder)
    wanted = _wanted(plan, folder, stage)
    with _scratch(workspace, folder, keep=keep) as scratch:
        changes = changes_of(folder, Identities(plan, scratch))
        blocked = _blocked(wanted, changes)
        nodes = tuple(node for node in wanted if node.name not in blocked)
        outcome = (
            execute(replace(plan, nodes=nodes), scratch, listeners=listeners, stop=stop, asks=False) if nodes else None
        )
        if outcome is not None and isinstance(outcome.error, Cancelled):
            raise outcome.error
        verdicts = tuple(_Judge(folder, outcome, changes, blocked).all(wanted))
        return Verified(folder.path.name, verdicts, changes, scratch.root if keep else None)


def _plan(folder: RunFolder) -> Plan:
    """The run's plan without what decides no result: no budget, no tracker, no key to a model."""
    source = read_source(folder.path / "recipe.yaml", base=Path(folder.manifest["base"]))
    for name in ("budget", "sinks", "sweep"):
        source.data.pop(name, None)
    for entry in (source.data.get("models") or {}).values():
        entry.pop("api_key", None)
    return plan_recipe(validate(source))


def _wanted(plan: Plan, folder: RunFolder, stage: str | None) -> tuple[Node, ...]:
    """The stages to make again, all of them finished."""
    names = {node.name for node in plan.nodes}
    if stage is not None:
        if stage not in {node.entry for node in plan.nodes}:
            known = ", ".join(plan.recipe.stages)
            raise InputError(f"run {folder.path.name} has no stage {stage}", f"It has: {known}.")
        names = _ancestors(plan, {node.name for node in plan.nodes if node.entry == stage})
    outputs = folder.outputs()
    wanted = tuple(node for node in plan.nodes if node.name in names)
    for node in wanted:
        output = outputs.get(node.name)
        if output is None or not output.meta["complete"]:
            done = [n.entry for n in plan.nodes if n.name in outputs and outputs[n.name].meta["complete"]]
            hint = f"`gristmill run` goes on with it. Up to {done[-1]} it can be verified: --stage." if done else ""
            raise InputError(f"run {folder.path.name} has not finished its stage {node.name}", hint)
    return wanted


def _ancestors(plan: Plan, names: set[str]) -> set[str]:
    """These stages, and all they rest on."""
    for node in reversed(plan.nodes):
        if node.name in names:
            names |= {*node.needs, *node.waits}
    return names


def _blocked(nodes: tuple[Node, ...], changes: Changes) -> dict[str, str]:
    """Stages that cannot give the same, and why: something they depend on has changed, or they follow one such."""
    blocked: dict[str, str] = {}
    for node in nodes:
        before = next((name for name in (*node.needs, *node.waits) if name in blocked), None)
        if why := changes.hard.get(node.name):
            blocked[node.name] = "; ".join(why)
        elif before is not None:
            blocked[node.name] = f"it rests on {before}"
    return blocked


@dataclass
class _Judge:
    """Compares what was made with what was recorded, stage by stage, in the order of the run."""

    folder: RunFolder
    outcome: Outcome | None
    changes: Changes
    blocked: dict[str, str]
    odd: list[str] = field(default_factory=list)  # stages so far that are not identical

    def all(self, nodes: tuple[Node, ...]) -> Iterator[Verdict]:
        made = RunFolder(self.outcome.folder).outputs() if self.outcome else {}
        recorded = self.folder.outputs()
        for node in nodes:
            verdict = self._one(node, recorded[node.name], made.get(node.name))
            if verdict.verdict != IDENTICAL:
                self.odd.append(node.name)
            yield verdict

    def _one(self, node: Node, recorded: Output, made: Output | None) -> Verdict:
        if node.name in self.blocked:
            return Verdict(node.name, node.kind, NOT_HERE, why=(self.blocked[node.name],))
        if made is None:
            return Verdict(node.name, node.kind, NOT_HERE, why=(self._ended(),))
        if missing := unkept(recorded, made):
            return Verdict(node.name, node.kind, NOT_HERE, why=(missing,))
        files, first = 0, None
        why: tuple[str, ...] = ()
        if node.stage.artifacts and self.outcome:
            then, now = (path / "checkpoints" / node.entry for path in (self.folder.path, self.outcome.folder))
            files, first = weights_difference(then, now)
            why = tuple(surroundings(then, now))
        first = first or output_difference(recorded, made)
        if first is None:
            counts = (recorded.count, sum(1 for _ in recorded.rejects()))
            return Verdict(node.name, node.kind, IDENTICAL, *counts, files)
        why += tuple(self.changes.soft.get(node.name, ())) + tuple(seen_otherwise(recorded, made))
        why += tuple(
            f"it rests on {name}, which is not identical" for name in self.odd if name in (*node.needs, *node.waits)
        )
        return Verdict(node.name, node.kind, NOT_HERE if why and not first.since else DIFFERS, why=why, first=first)

    def _ended(self) -> str:
        """Why the stage was not reached."""
        error: GristmillError | None = self.outcome.error if self.outcome else None
        return error.message if error else "it was not reached"


@dataclass(frozen=True)
class _Scratch(Workspace):
    """A workspace of its own. Answers of models are those in another's store, and earlier runs are those of there."""

    original: Workspace
    run: RunFolder

    @cached_property
    def store(self) -> Store:
        return _Kept(self.root / "store.db", self.original.store)

    def stands_for(self, run: RunFolder) -> tuple[Workspace, RunFolder]:  # noqa: ARG002
        return self.original, self.run


class _Kept(SqliteStore):
    """A new store, and the answers of another."""

    def __init__(self, path: Path, answers: Store) -> None:
        super().__init__(path, hashes=path.with_name("files.db"))
        self._answers = answers

    async def response(self, key: str) -> dict[str, Any] | None:
        return await self._answers.response(key)

    def calls(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        return self._answers.calls(keys)


@contextmanager
def _scratch(workspace: Workspace, run: RunFolder, *, keep: bool) -> Iterator[_Scratch]:
    """A folder that is gone afterwards; one that a killed process left goes when the next begins."""
    for left in workspace.root.glob(f"{SCRATCH}*"):
        with _held(left) as free:
            if free and not (left / "kept").exists():
                shutil.rmtree(left)
    root = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=workspace.root))
    with _held(root):
        scratch = _Scratch(root, workspace, run)
        try:
            yield scratch
        finally:
            scratch.store.close()
            if keep:
                (root / "kept").touch()
            else:
                shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Whether the folder is nobody else's, and while this lasts it is ours."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
