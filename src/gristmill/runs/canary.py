"""Try a recipe on a few of its records: the stages that cost nothing run whole, the others on records spread over their
input. What is asked goes through the store under the run's name and budget, so that the run finds these answers and
nothing is paid for twice.

What a record took (its calls, their tokens and seconds) is kept beside its outcome: a second canary tells the same
without asking.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, replace
from itertools import pairwise
from typing import Any

import orjson
import uvloop

from gristmill.core.ask import Usage
from gristmill.core.errors import ConfigError, InputError
from gristmill.core.events import EventLog, Listener
from gristmill.core.logs import ROW, STAGE, logging_to
from gristmill.core.store import Store
from gristmill.llm.budget import Budget
from gristmill.llm.client import Client, LineStatus
from gristmill.llm.spec import RemoteSpec, StageSpec
from gristmill.runs.context import Context, Current
from gristmill.runs.fingerprint import node_key
from gristmill.runs.folder import Counts, Inputs, Output, RunFolder, Writer
from gristmill.runs.identity import Identities, identify
from gristmill.runs.lease import leased
from gristmill.runs.passes import run_pass
from gristmill.runs.plan import Node, Plan
from gristmill.runs.steps import Step
from gristmill.runs.tables import Group
from gristmill.runs.workspace import Workspace


@dataclass(frozen=True)
class Call:
    """One call that a record took; seconds are None where the answer lay in the store."""

    role: str
    usage: Usage
    seconds: float | None


@dataclass(frozen=True)
class Tried:
    """What one record brought and took."""

    given: int
    calls: tuple[Call, ...]


@dataclass
class Trial:
    """What a stage did. `exact`: its input is all there is, not what comes of a few."""

    node: Node
    how: str  # whole | tried | left | again (a later round of `repeat`: it takes what the first took, or nothing)
    exact: bool = False
    taken: int = 0
    given: int = 0
    kept: int = 0  # of the records taken, those that are done now
    seconds: float = 0.0
    tried: list[Tried] = field(default_factory=list)
    lines: list[LineStatus] = field(default_factory=list)
    output: Output | None = None
    why: str = ""  # it was left


def try_out(
    plan: Plan, workspace: Workspace, *, records: int, listeners: tuple[Listener, ...] = ()
) -> tuple[str, list[Trial]]:
    """The run's id, and what became of every stage. The run itself is held meanwhile: it would pay for the same."""
    this = identify(plan, workspace)
    real = this.folder
    place = RunFolder(workspace.root / "estimates" / real.path.name)
    with real.locked(), leased(real, workspace.store):
        (place.path / "events.ndjson").unlink(missing_ok=True)
        events = EventLog(place.path / "events.ndjson", *listeners)
        try:
            with (
                logging_to(place.path / "log.ndjson", run=real.path.name),
                asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop,
            ):
                canary = _Canary(_at_once(plan), workspace, place, events, this.names, records)
                return real.path.name, loop.run(canary.run())
        finally:
            events.close()


def _at_once(plan: Plan) -> Plan:
    """The same plan without batches: nobody waits a day for an estimate."""
    models = {
        role: spec.model_copy(update={"batch": None}) if isinstance(spec, RemoteSpec) else spec
        for role, spec in plan.recipe.models.items()
    }
    return replace(plan, recipe=replace(plan.recipe, models=models))


class _Canary:
    def __init__(
        self, plan: Plan, workspace: Workspace, place: RunFolder, events: EventLog, names: Identities, records: int
    ) -> None:
        run = place.path.name
        self.names = names
        self.records = records
        self.calls = _Calls(workspace.store)
        budget = Budget(plan.recipe.budget, store=workspace.store, run=run)
        client = Client(
            workspace.store,
            workspace=workspace.root,
            base=plan.recipe.base,
            budget=budget,
            run=run,
            seed=plan.recipe.seed,
            emit=events.emit,
            heard=self.calls,
        )
        self.current = Current(plan, workspace, place, client, events, threading.Event())
        self.trials: dict[str, Trial] = {}

    async def run(self) -> list[Trial]:
        try:
            for index, node in enumerate(self.current.plan.nodes):
                STAGE.set(node.name)
                left = self._left_out(node) or self._again(index, node)
                self.trials[node.name] = left or await self._try(index, node)
        finally:
            await self.current.close()
        return list(self.trials.values())

    def _left_out(self, node: Node) -> Trial | None:
        """What is not run for an estimate: training, and what follows from what was not run."""
        gone = [need for need in (*node.needs, *node.waits) if self.trials[need].how == "left"]
        specs = {role: self.current.plan.recipe.models[role] for role in node.roles}
        untrained = [role for role, spec in specs.items() if isinstance(spec, StageSpec)]
        if node.stage.artifacts:
            return Trial(node, "left", why="it trains")
        if untrained:
            return Trial(node, "left", why=f"`{untrained[0]}` is not trained yet")
        if gone:
            return Trial(node, "left", why=f"it follows {gone[0]}")
        if not node.stage.keep:
            return Trial(node, "left", why="it writes files")
        return None

    def _again(self, index: int, node: Node) -> Trial | None:
        """A later round is not tried: whether there is one, nobody knows before the round before it."""
        if node.round < 2:
            return None
        with Writer(self.current.folder.stage(index, node.name), Counts()) as writer:
            nothing = writer.finish("canary", kind=node.kind, complete=False)
        self.current.records.add(node.name, nothing)
        return Trial(node, "again", output=nothing)

    async def _try(self, index: int, node: Node) -> Trial:
        """Run a stage: on all that there is for it, or, if it asks models, on a few."""
        current = self.current
        store = current.workspace.store
        inputs = Inputs([current.records.outputs[need] for need in node.needs])
        exact = all(self.trials[need].exact and self.trials[need].how == "whole" for need in node.needs)
        trial = Trial(node, "whole", exact=exact, taken=len(inputs))
        key = node_key(current.plan, node, self.names.during(current, node), store.file_hash)
        output = current.folder.stage(index, node.name)
        if node.stage.shape == "step" and node.roles:
            trial.how = "tried"
            sample = _Sample(Step(current, node, key, self._context(node, Counts()), Counts(), inputs), store)
            inputs = await asyncio.to_thread(
                sample.draw, Output(output.folder.with_name(f"{output.folder.name}.canary")), self.records
            )
        current.events.emit("stage.started", stage=node.name, kind=node.kind, records=len(inputs))
        counts, began = Counts(), time.monotonic()
        try:
            with Writer(output, counts) as writer:
                await self._run(trial, key, counts, inputs, writer)
                trial.output = writer.finish("canary", kind=node.kind, complete=False)
        except (ConfigError, InputError) as error:
            if exact:
                raise
            return Trial(node, "left", why=f"of so few records it makes nothing ({error.message})")
        trial.given, trial.seconds = counts.given, round(time.monotonic() - began, 3)
        trial.lines = [line for line in current.client.lines() if set(line.roles) & set(node.roles)]
        if trial.how == "tried":
            trial.kept = await asyncio.to_thread(sample.done)
        current.records.add(node.name, trial.output)
        current.events.emit("stage.finished", stage=node.name, seconds=trial.seconds, **vars(counts))
        await current.client.close()
        return trial

    async def _run(self, trial: Trial, key: dict[str, Any], counts: Counts, inputs: Inputs, writer: Writer) -> None:
        """The stage's own work. What its records took is kept even if a budget interrupts it."""
        context = self._context(trial.node, counts)
        if trial.node.stage.shape == "pass":
            await run_pass(self.current, trial.node, context, counts, inputs, writer)
            return
        step = Step(self.current, trial.node, key, context, counts, inputs)
        try:
            await step.run(writer)
        finally:
            if trial.how == "tried":
                await self.current.workspace.store.flush()
                trial.tried = await self.calls.of(step)

    def _context(self, node: Node, counts: Counts) -> Context:
        return Context(self.current, node, counts, self.current.folder.path / "artifacts")


class _Sample:
    """Which records of a step's input are tried: spread over all of it, and none whose cost nobody knows any more
    because another run has done it."""

    def __init__(self, step: Step, store: Store) -> None:
        self.step = step
        self.store = store

    def draw(self, output: Output, records: int) -> Inputs:
        """The chosen records as an output of their own; all of them where there are no more, or all are done."""
        if len(self.step.inputs) <= records:
            return self.step.inputs
        open_at = [place for start, group in self._groups() for place in self._open(start, group)]
        if not open_at:
            return self.step.inputs
        chosen = _spread(open_at, records)
        with Writer(output, Counts()) as writer:
            for group, at in self._places(chosen):
                writer.give(group.rows(at))
            return Inputs([writer.finish("canary", complete=False)])

    def _places(self, chosen: list[int]) -> Iterator[tuple[Group, list[int]]]:
        for start, group in self._groups():
            end = start + len(group)
            at = [place - start for place in chosen if start <= place < end]
            if at:
                yield group, at

    def _groups(self) -> Iterator[tuple[int, Group]]:
        """Each with how many records stand before it."""
        start = 0
        for group in self.step.inputs.groups():
            yield start, group
            start += len(group)

    def _open(self, start: int, group: Group) -> list[int]:
        """The places of those that may be tried."""
        keys = self.step.feed.keys(group)
        done = self.store.kept(keys)
        known = self.store.results([_note(key) for key in done])
        return [start + i for i, key in enumerate(keys) if key not in done or _note(key) in known]

    def done(self) -> int:
        """How many of all records are done now."""
        return sum(len(self.store.kept(self.step.feed.keys(group))) for group in self.step.inputs.groups())


def _spread(places: list[int], count: int) -> list[int]:
    """So many of them, one at random out of each stretch of the same length: no rhythm of the input (two chunks to a
    document, a summary every tenth page) can meet one of ours. The same each time."""
    if len(places) <= count:
        return places
    rng = random.Random(count)
    edges = [i * len(places) // count for i in range(count + 1)]
    return [places[rng.randrange(start, end)] for start, end in pairwise(edges)]


def _note(key: str) -> str:
    """Where it is kept what a record took, beside its outcome."""
    return f"canary {key}"


class _Calls:
    """What each record took: hears of every answer, in the task of the record that it is for."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._rows: defaultdict[str, list[Call]] = defaultdict(list)

    def __call__(self, role: str, _stage: str, usage: Usage, seconds: float | None, _nano: int) -> None:
        if (row := ROW.get()) is not None:
            self._rows[row].append(Call(role, usage, seconds))

    async def of(self, step: Step) -> list[Tried]:
        """Of the records that a step has just done, and of those done by an earlier canary. A record that nobody
        knows the calls of (it could not be asked now) is left out."""
        heard, self._rows = self._rows, defaultdict(list)
        tried = []
        for group in step.inputs.groups():
            keys = step.feed.keys(group)
            outcomes = self.store.results(keys)
            notes = self.store.results([_note(key) for key in keys])
            for key, row in zip(keys, group.column("id"), strict=True):
                if key not in outcomes:
                    continue
                if row in heard:
                    one = Tried(len(orjson.loads(outcomes[key]).get("records", ())), tuple(heard[row]))
                    await self.store.put_result(_note(key), _pack(one))
                    tried.append(one)
                elif _note(key) in notes:
                    tried.append(_unpack(notes[_note(key)]))
        return tried


def _pack(tried: Tried) -> bytes:
    return orjson.dumps([tried.given, [[call.role, [*astuple(call.usage)], call.seconds] for call in tried.calls]])


def _unpack(note: bytes) -> Tried:
    given, calls = orjson.loads(note)
    return Tried(given, tuple(Call(role, Usage(*usage), seconds) for role, usage, seconds in calls))
