"""Execute a plan: stage after stage, each kept under its fingerprint, resumable after any kind of end."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from traceback import format_exception
from typing import Any

import orjson

from gristmill.core.errors import (
    BudgetError,
    Cancelled,
    GristmillError,
    InputError,
    ProviderError,
    StageFailure,
    boundary,
    run_error,
)
from gristmill.core.events import EventLog, Listener, read_events
from gristmill.core.files import atomic
from gristmill.core.records import Checkpoint, digest_of
from gristmill.llm.budget import Budget
from gristmill.llm.client import Client
from gristmill.llm.spec import LocalSpec, StageSpec, remote_identity
from gristmill.models.weights import locate
from gristmill.runs.context import Context, Current
from gristmill.runs.fingerprint import node_key, outside, run_fingerprint
from gristmill.runs.folder import Counts, Output, RunFolder, Writer, reuse
from gristmill.runs.manifest import rename, write_manifest
from gristmill.runs.passes import link_weights, run_pass
from gristmill.runs.plan import Node, Plan
from gristmill.runs.report import write_report
from gristmill.runs.steps import Step
from gristmill.runs.workspace import Workspace

CODE_ONLY_WIDTH = 16
"""Records of a stage without a model that are under way at once; more only helps where a step waits (reading files)."""


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
) -> Outcome:
    """Run a plan in its workspace. Stops by itself on budgets; `stop` asks it to stop at the next safe place."""
    if name is not None:
        workspace.check_name(name)
    names = _Identities(plan, workspace)
    fingerprint = run_fingerprint(plan, names.before, workspace.store.file_hash)
    folder = RunFolder(workspace.runs / f"{plan.recipe.name}-{fingerprint[:8]}")
    with folder.locked():
        if folder.summary.get("state") == "finished":
            if name is not None:
                rename(folder, name)
            if name is not None or not (folder.path / "report.html").exists():
                write_report(folder)
            return Outcome(folder.path, "shown", folder.summary)
        folder.stop_file.unlink(missing_ok=True)
        write_manifest(folder, plan, name=name, fingerprint=fingerprint, **names.hashes())
        events = EventLog(folder.path / "events.ndjson", *listeners)
        try:
            runner = _Runner(plan, workspace, folder, events, stop or threading.Event(), names)
            return asyncio.run(runner.run())
        finally:
            events.close()


class _Identities:
    """Names of the weights behind roles: before a run (a trained model is named by its stage), and during it."""

    def __init__(self, plan: Plan, workspace: Workspace) -> None:
        self.plan = plan
        self.workspace = workspace

    def before(self, role: str) -> str:
        spec = self.plan.recipe.models[role]
        if isinstance(spec, StageSpec):
            return f"from {spec.from_}"
        if isinstance(spec, LocalSpec):
            hasher = self.workspace.store.file_hash
            return f"weights {locate(spec.model, base=self.plan.recipe.base, hasher=hasher).sha256}"
        return remote_identity(spec)

    def hashes(self) -> dict[str, Any]:
        """What a run depends on besides its recipe, for its manifest: the models it names, the files it reads."""
        file_hash = self.workspace.store.file_hash
        inputs = {path: digest for node in self.plan.nodes for path, digest in outside(self.plan, node, file_hash)}
        used = {role for node in self.plan.nodes for role in node.roles}
        return {"models": {role: self.before(role) for role in sorted(used)}, "inputs": inputs}

    def during(self, current: Current) -> Callable[[str], str]:
        def name(role: str) -> str:
            trained = isinstance(self.plan.recipe.models[role], StageSpec)
            return f"weights {current.weights(role).sha256}" if trained else self.before(role)

        return name


class _Runner:
    """One attempt at a run."""

    def __init__(
        self,
        plan: Plan,
        workspace: Workspace,
        folder: RunFolder,
        events: EventLog,
        stop: threading.Event,
        names: _Identities,
    ) -> None:
        limits = plan.recipe.budget
        spent = workspace.store.spent(folder.path.name)
        used = _seconds_used(folder)
        self.names = names
        self.budget = Budget(limits, spent=spent, elapsed=used)
        client = Client(
            workspace.store,
            workspace=workspace.root,
            base=plan.recipe.base,
            budget=self.budget,
            run=folder.path.name,
            seed=plan.recipe.seed,
            emit=events.emit,
            stopping=lambda: self.current.stopping(),
        )
        deadline = time.monotonic() + max(0.0, limits.seconds - used) if limits.seconds else None
        self.current = Current(plan, workspace, folder, client, events, stop, deadline)

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
        except Cancelled as cancelled:
            late = current.deadline is not None and time.monotonic() > current.deadline
            error = self._out_of_time() if late else cancelled
            state = "paused" if late else "cancelled"
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
                await self.current.client.close()

    async def _stage(self, index: int, node: Node) -> None:
        current = self.current
        if current.stopping():
            raise Cancelled("stopped", "Run the same command again to go on.")
        output = current.folder.stage(index, node.name)
        key = node_key(current.plan, node, self.names.during(current), current.workspace.store.file_hash)
        inputs_key = [current.records.outputs[need].digest for need in node.needs]
        fingerprint = digest_of([key, inputs_key])
        made = self._kept(node, output, fingerprint)
        if made is None:
            if node.stage.artifacts:
                self._must_be_whole(node)
            made = await self._make(node, output, key, fingerprint)
        current.records.add(node.name, made)
        if not made.count:
            raise InputError(f"stage {node.name} gave nothing", _why_empty(made))

    def _must_be_whole(self, node: Node) -> None:
        """Weights are not trained on data that the next run will complete: they would have to be trained again."""
        if missing := self._unreachable():
            raise ProviderError(
                f"stage {node.name} waits: {missing} records before it could not be asked",
                "Run the same command again: it asks for those alone.",
            )

    def _kept(self, node: Node, output: Output, fingerprint: str) -> Output | None:
        """The stage's finished output: in this run's folder, or in another run's."""
        if output.meta.get("fingerprint") == fingerprint and output.meta["complete"]:
            return output
        if not node.stage.keep:
            return None
        store = self.current.workspace.store
        where = store.results([fingerprint]).get(fingerprint)
        if where is None:
            return None
        source = self.current.workspace.root / where.decode()
        if Output(source).meta.get("fingerprint") != fingerprint or source == output.folder:
            return None
        self.current.events.emit("stage.reused", stage=node.name, source=where.decode())
        reused = reuse(source, output)
        if node.stage.artifacts:
            for record in reused:
                if isinstance(record, Checkpoint):
                    link_weights(self.current, node, record)
        return reused

    async def _make(self, node: Node, output: Output, key: dict[str, Any], fingerprint: str) -> Output:
        current = self.current
        inputs = [record for need in node.needs for record in current.records.outputs[need]]
        counts = Counts()
        writer = Writer(output, counts)
        context = Context(current, node, counts, current.workspace.artifacts / fingerprint[:16])
        context.show = lambda **values: self._show(node, **values)
        current.events.emit("stage.started", stage=node.name, kind=node.kind, records=len(inputs))
        started = time.monotonic()
        if node.stage.shape == "step":
            await Step(current, node, key, context, counts, inputs, self._width(node)).run(writer)
        else:
            await run_pass(current, node, context, counts, inputs, writer)
        for name, amount in current.client.counters[node.name].items():
            counts.more[name] = counts.more.get(name, 0) + amount
        await current.client.close()  # engines are let go: a stage that trains wants their memory
        made = writer.finish(fingerprint, kind=node.kind, complete=not counts.unreachable)
        if not counts.unreachable and node.stage.keep:
            place = output.folder.relative_to(current.workspace.root).as_posix()
            await current.workspace.store.put_result(fingerprint, place.encode())
        seconds = round(time.monotonic() - started, 3)
        current.events.emit("stage.finished", stage=node.name, seconds=seconds, **vars(counts))
        return made

    def _width(self, node: Node) -> int:
        specs = [self.current.plan.recipe.models[role] for role in node.roles]
        return max(((spec.concurrency or 16) + 2 for spec in specs), default=CODE_ONLY_WIDTH)

    def _show(self, node: Node, **values: Any) -> None:
        for listener in self.current.events.listeners:
            listener(
                {
                    "event": "progress",
                    "stage": node.name,
                    "spent": {"calls": self.budget.calls, "tokens": self.budget.tokens},
                    **values,
                }
            )

    def _unreachable(self) -> int:
        return sum(o.meta["counts"]["unreachable"] for o in self.current.records.outputs.values())

    def _out_of_time(self) -> BudgetError:
        return BudgetError(
            f"the budget of {self.current.plan.recipe.budget.seconds:g} seconds is used up",
            "Everything done is kept. Raise budget.seconds and run the same command to go on.",
        )

    def _summary(self, state: str, error: GristmillError | None) -> dict[str, Any]:
        spent = self.current.workspace.store.spent(self.current.folder.path.name)
        return {
            "state": state,
            "error": str(error) if error else None,
            "hint": error.hint if error else None,
            "spent": {"calls": spent.calls, "tokens_in": spent.tokens_in, "tokens_out": spent.tokens_out},
            "funnel": {name: output.meta["counts"] for name, output in self.current.records.outputs.items()},
        }

    def _write_down(self, summary: dict[str, Any], error: GristmillError | None) -> None:
        """Event, summary, page. What lies behind an error of ours is kept too: it is what mends a defect."""
        folder = self.current.folder
        trace = {"traceback": "".join(format_exception(error))} if error and error.__cause__ else {}
        self.current.events.emit(f"run.{summary['state']}", error=summary["error"], **trace)
        with atomic(folder.path / "summary.json") as file:
            file.write(orjson.dumps(summary, option=orjson.OPT_INDENT_2))
        write_report(folder)


def _seconds_used(folder: RunFolder) -> float:
    """Wall time of the earlier attempts, by their events."""
    total, started, last = 0.0, None, 0.0
    for event in read_events(folder.path / "events.ndjson"):
        if event["event"] == "run.started":
            total += last - started if started is not None else 0.0
            started = event["time"]
        last = event["time"]
    return total + (last - started if started is not None else 0.0)


def _why_empty(output: Output) -> str:
    counts = output.meta["counts"]
    reasons = {**counts["rejected"], **counts["failed"]}
    if not reasons:
        return "It had nothing to work on." if not counts["taken"] else "See its settings."
    top = ", ".join(f"{reason} ({n})" for reason, n in sorted(reasons.items(), key=lambda x: -x[1])[:3])
    return f"Every record was dropped: {top}. See `gristmill show RUN rejects`."
