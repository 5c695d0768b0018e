"""Execute a plan: stage after stage, each kept under its fingerprint, resumable after any kind of end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from traceback import format_exception
from typing import Any

import orjson
import uvloop

from gristmill.core.errors import (
    BudgetError,
    Cancelled,
    GristmillError,
    ProviderError,
    StageFailure,
    StoreError,
    boundary,
    run_error,
)
from gristmill.core.events import EventLog, Listener, read_events
from gristmill.core.files import atomic
from gristmill.core.logs import STAGE, logging_to
from gristmill.core.records import digest_of
from gristmill.llm.budget import Budget
from gristmill.llm.client import Client
from gristmill.runs.blame import gave_nothing
from gristmill.runs.context import Context, Current
from gristmill.runs.figures import counted
from gristmill.runs.fingerprint import node_key
from gristmill.runs.folder import Counts, Inputs, Output, RunFolder, Writer, reuse
from gristmill.runs.following import Following
from gristmill.runs.identity import Identity, identify
from gristmill.runs.lease import leased
from gristmill.runs.manifest import rename, write_manifest
from gristmill.runs.passes import link_weights, made_folder, run_pass
from gristmill.runs.plan import Node, Plan
from gristmill.runs.repeat import SKIPPED
from gristmill.runs.report import write_report
from gristmill.runs.rounds import missed, over
from gristmill.runs.steps import Step, Undone, step_key
from gristmill.runs.tables import LAYOUT, give_back
from gristmill.runs.workspace import Workspace


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended."""

    folder: Path
    state: str  # finished | incomplete | paused | cancelled | failed | shown (it was finished before)
    summary: dict[str, Any]
    error: GristmillError | None = None


def execute(
    plan: Plan,
    workspace: Workspace,
    *,
    name: str | None = None,
    listeners: tuple[Listener, ...] = (),
    stop: threading.Event | None = None,
    retry: bool = False,
    beside: Sequence[str] = (),
    asks: bool = True,
) -> Outcome:
    """Run a plan in its workspace. Stops by itself on budgets; `stop` asks it to stop at the next safe place. With
    `retry` a run's dead letters are sent again, of all its stages, and what follows them is brought up to date; of a
    run that did not come to its end nothing else is done, and it stays paused. Runs `beside` it share its budget. One
    that does not ask (`asks=False`) makes do with the answers that the store holds."""
    if name is not None:
        workspace.check_name(name)
    this = identify(plan, workspace)
    folder = this.folder
    try:
        with folder.locked():
            if folder.summary.get("state") == "finished" and not (retry and folder.dead_letters):
                return _show(folder, name)
            with leased(folder, workspace.store):
                following = Following(plan, folder, name=name)  # before anything is paid for
                folder.begin()
                write_manifest(folder, plan, name=name, fingerprint=this.fingerprint, **this.names.hashes())
                events = EventLog(folder.path / "events.ndjson", *listeners)
                try:
                    terms = _Terms(retry, tuple(beside), asks)
                    runner = _Runner(plan, workspace, this, events, stop or threading.Event(), terms)
                    return _attempt(runner, following)
                finally:
                    events.close()
    except OSError as error:
        hint = "Free disk space or check the folder's permissions, then run again: what was confirmed is kept."
        raise StoreError(f"the run's folder {folder.path} cannot be written: {error}", hint) from error


def _show(folder: RunFolder, name: str | None) -> Outcome:
    """A run that is finished, perhaps under another name."""
    if name is not None:
        rename(folder, name)
    if name is not None or not (folder.path / "report.html").exists():
        write_report(folder)
    return Outcome(folder.path, "shown", folder.summary)


def _attempt(runner: _Runner, following: Following) -> Outcome:
    run = runner.current.folder.path
    with (
        logging_to(run / "log.ndjson", run=run.name),
        following.hearing(runner.current.events),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop,
    ):
        return loop.run(runner.run())


@dataclass(frozen=True)
class _Terms:
    """What `execute` was told besides the plan."""

    retry: bool
    beside: tuple[str, ...]
    asks: bool


class _Runner:
    """One attempt at a run: takes it through its stages."""

    def __init__(
        self, plan: Plan, workspace: Workspace, this: Identity, events: EventLog, stop: threading.Event, terms: _Terms
    ) -> None:
        self.names = this.names
        self.retry = terms.retry
        self.left: Undone | None = None  # what a retry leaves to the next run
        run = this.folder.path.name
        elapsed = sum(seconds_used(RunFolder(workspace.runs / name)) for name in (run, *terms.beside))
        limits, store = plan.recipe.budget, workspace.store
        client = Client(
            store,
            workspace=workspace.root,
            base=plan.recipe.base,
            budget=Budget(limits, store=store, run=run, elapsed=elapsed, beside=terms.beside),
            run=run,
            seed=plan.recipe.seed,
            emit=events.emit,
            stopping=lambda: self.current.winding_up or stop.is_set(),
            asks=terms.asks,
        )
        self.current = Current(plan, workspace, this.folder, client, events, stop)

    async def run(self) -> Outcome:
        current = self.current
        current.events.emit("run.started", run=current.folder.path.name, stages=[n.name for n in current.plan.nodes])
        error: GristmillError | None = None
        try:
            await self._stages()
            state = "finished" if not self._unreachable() else "incomplete"
        except asyncio.CancelledError:  # from outside, at once: a pass in its thread hears it by `stop`
            current.stop.set()
            current.events.emit("run.interrupted", error=None)
            raise
        except Undone as left:
            self.left, state = left, "paused"
        except Cancelled as cancelled:
            late = current.client.budget.out_of_time()
            error, state = (late, "paused") if late else (cancelled, "cancelled")
        except BudgetError as reached:
            error, state = reached, "paused"
        except StageFailure as failed:
            error, state = run_error(failed, "the run"), "failed"
        except GristmillError as broken:
            error, state = broken, "failed"
        summary = self._summary(state, error)
        try:
            with boundary("writing down how the run ended"):
                self._write_down(summary, error)
        except StageFailure as failed:
            if error is None:
                error, state = run_error(failed, "the run"), "failed"
                summary = self._summary(state, error)
        return Outcome(current.folder.path, state, summary, error)

    async def _stages(self) -> None:
        """All of them, in order. Engines and connections are let go however it ends."""
        with boundary("the run"):
            try:
                for index, node in enumerate(self.current.plan.nodes):
                    await self._stage(index, node)
            finally:
                await self.current.close()

    async def _stage(self, index: int, node: Node) -> None:
        current = self.current
        STAGE.set(node.name)
        if current.stopping():
            raise Cancelled("stopped", "Run the same command again to go on.")
        output = current.folder.stage(index, node.name)
        if why := over(current.plan, node, current.records.outputs):
            current.records.add(node.name, self._skip(node, output, why))
            return
        key = node_key(current.plan, node, self.names.during(current, node), current.workspace.store.file_hash)
        inputs_key = [current.records.outputs[need].digest for need in node.needs]
        fingerprint = digest_of([LAYOUT, key, inputs_key])
        made = self._kept(node, output, fingerprint)
        if made is None:
            if node.stage.artifacts:
                self._must_be_whole(node)
            made = await self._make(node, output, key, fingerprint)
        current.records.add(node.name, made)
        if not made.count:
            self._nothing(node, made)
        self._say_missed(node)

    def _nothing(self, node: Node, made: Output) -> None:
        """An error, but for a round that finds nothing more to do: it is the last."""
        error = gave_nothing(node.name, made, self._inputs(node))
        if node.round < 2 or isinstance(error, ProviderError):
            raise error
        said = f"{error.message}: no more rounds. {error.hint}"
        self.current.events.emit("warning", stage=node.name, message=said)

    def _skip(self, node: Node, output: Output, why: str) -> Output:
        """A stage that is not needed: nothing in, nothing out, and why."""
        fingerprint = digest_of([LAYOUT, SKIPPED, why])
        self.current.events.emit("stage.skipped", stage=node.name, kind=node.kind, why=why)
        if not self._whole(output, fingerprint):
            with Writer(output, Counts()) as writer:
                output = writer.finish(fingerprint, kind=node.kind, complete=True, **{SKIPPED: why})
        self._say_missed(node)
        return output

    def _say_missed(self, node: Node) -> None:
        if said := missed(self.current.plan, node, self.current.records.outputs):
            self.current.events.emit("warning", stage=node.entry, message=said)

    def _must_be_whole(self, node: Node) -> None:
        """Weights are not trained on data that the next run will complete: they would have to be trained again."""
        if missing := self._unreachable():
            raise ProviderError(
                f"stage {node.name} waits: {counted(missing, 'record')} before it could not be asked",
                "`gristmill run` with its recipe asks for what is missing alone.",
            )

    def _kept(self, node: Node, output: Output, fingerprint: str) -> Output | None:
        """The stage's finished output: in this run's folder, or in another run's."""
        if self._whole(output, fingerprint):
            self.current.events.emit("stage.kept", stage=node.name, kind=node.kind, **output.meta["counts"])
            return output
        if not node.stage.keep:
            return None
        store = self.current.workspace.store
        where = store.results([fingerprint]).get(fingerprint)
        if where is None:
            return None
        source = self.current.workspace.root / where.decode()
        if not self._whole(Output(source), fingerprint) or source == output.folder:
            return None
        reused = reuse(source, output)
        said = {"stage": node.name, "kind": node.kind, "source": where.decode()}
        self.current.events.emit("stage.reused", **said, **reused.meta["counts"])
        if node.stage.artifacts:
            for record in reused:
                if made_folder(node, record):
                    link_weights(self.current, node, record)
        return reused

    def _whole(self, output: Output, fingerprint: str) -> bool:
        """Whether it is what is wanted; dead letters are not, when they are to be sent again."""
        meta = output.meta
        return meta.get("fingerprint") == fingerprint and meta["complete"] and not (self.retry and output.dead_letters)

    async def _make(self, node: Node, output: Output, key: dict[str, Any], fingerprint: str) -> Output:
        current = self.current
        inputs, rest = self._inputs(node), bool(output.meta) or not self.retry
        if not rest and node.stage.shape == "pass":
            raise Undone(node.name, len(inputs))
        counts = Counts()
        context = Context(current, node, counts, current.workspace.artifacts / fingerprint[:16])
        kept = {"needs": list(node.needs), "key": step_key(key) if node.stage.shape == "step" else None}
        current.events.emit("stage.started", stage=node.name, kind=node.kind, records=len(inputs), **kept)
        started = time.monotonic()
        with Writer(output, counts) as writer:
            if node.stage.shape == "step":
                await Step(current, node, key, context, counts, inputs, self.retry, rest).run(writer)
            else:
                await run_pass(current, node, context, counts, inputs, writer)
            self._count_costs(node, counts)
            await current.client.close()  # engines are let go: a stage that trains wants their memory
            made = writer.finish(fingerprint, kind=node.kind, complete=not counts.unreachable)
        give_back()
        if not counts.unreachable and node.stage.keep:
            place = output.folder.relative_to(current.workspace.root).as_posix()
            await current.workspace.store.put_result(fingerprint, place.encode())
        seconds = round(time.monotonic() - started, 3)
        current.events.emit("stage.finished", stage=node.name, seconds=seconds, **vars(counts))
        return made

    def _inputs(self, node: Node) -> Inputs:
        return Inputs([self.current.records.outputs[need] for need in node.needs])

    def _count_costs(self, node: Node, counts: Counts) -> None:
        """What the stage has cost over all attempts, and what its calls came to in this one."""
        more: Counter[str] = Counter(self.current.client.counters[node.name])
        store, run = self.current.workspace.store, self.current.folder.path.name
        paid = [spent for (stage, _role), spent in store.spent_by_stage(run).items() if stage == node.name]
        if paid:
            for name in ("calls", "tokens_in", "tokens_out", "usd"):
                more[name] = sum(getattr(spent, name) for spent in paid)
        for name, amount in more.items():
            counts.more[name] = counts.more.get(name, 0) + amount

    def _unreachable(self) -> int:
        return sum(o.meta["counts"]["unreachable"] for o in self.current.records.outputs.values())

    def _summary(self, state: str, error: GristmillError | None) -> dict[str, Any]:
        store, run = self.current.workspace.store, self.current.folder.path.name
        spent, lines = store.spent(run), store.spent_by_stage(run).items()
        return {
            "state": state,
            "error": str(error) if error else None,
            "hint": error.hint if error else str(self.left) if self.left else None,
            "spent": {**asdict(spent), "usd": spent.usd},
            "paid": [{"stage": stage, "role": role, **asdict(line)} for (stage, role), line in lines],
            "funnel": {name: output.meta["counts"] for name, output in self.current.records.outputs.items()},
            "skipped": {n: o.meta[SKIPPED] for n, o in self.current.records.outputs.items() if SKIPPED in o.meta},
            "dead_letters": sum(output.dead_letters for output in self.current.records.outputs.values()),
        }

    def _write_down(self, summary: dict[str, Any], error: GristmillError | None) -> None:
        """Event, summary, page. What lies behind an error of ours is kept too: it is what mends a defect."""
        folder = self.current.folder
        trace = {"traceback": "".join(format_exception(error))} if error and error.__cause__ else {}
        at = {"stage": STAGE.get()} if summary["state"] not in ("finished", "incomplete") else {}
        self.current.events.emit(f"run.{summary['state']}", **at, error=summary["error"], **trace)
        with atomic(folder.path / "summary.json") as file:
            file.write(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
        write_report(folder)


def seconds_used(folder: RunFolder) -> float:
    """Wall time of the earlier attempts, by their events."""
    total, started, last = 0.0, None, 0.0
    for event in read_events(folder.path / "events.ndjson"):
        if event["event"] == "run.started":
            total += last - started if started is not None else 0.0
            started = event["time"]
        last = event["time"]
    return total + (last - started if started is not None else 0.0)
