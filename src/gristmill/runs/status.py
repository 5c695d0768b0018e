"""How far a run is, what it has cost and when it will be done: from its events and the ledger alone, in any process.

`Progress` takes the events one by one, as they are made or as they are read back, so that the display of `gristmill
run` and that of `status` in another process are the same thing. Money and tokens come from the ledger, which counts
what every attempt paid; rates come from the progress events of the last minute.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.events import Event, Tail, last_event
from gristmill.core.store import Spent
from gristmill.llm.budget import KILLED
from gristmill.runs.folder import RunFolder
from gristmill.runs.workspace import Workspace

WINDOW = 60.0
"""Seconds over which rates are taken."""

Ledger = dict[tuple[str, str], Spent]


@dataclass(slots=True)
class Reading:
    """What a progress event said, for rates."""

    time: float
    done: float
    calls: int
    tokens: int


@dataclass(slots=True)
class StageProgress:
    """One line of the funnel, as far as it has got."""

    name: str
    kind: str = ""
    state: str = "waiting"  # waiting | running | done | kept (of an earlier run) | skipped | stopped | charged
    done: float = 0
    total: float = 0
    failed: int = 0
    counts: dict[str, Any] = field(default_factory=dict)  # of a finished stage
    started: float = 0.0
    seconds: float | None = None
    note: dict[str, Any] = field(default_factory=dict)  # what a stage says of itself (a loss, a step)


_PLAIN = ("event", "stage", "time", "done", "total", "failed", "spent", "lines")


class Progress:
    """What the events of a run add up to. `feed` them in order, then ask for `state`."""

    def __init__(self, stages: list[dict[str, Any]], budget: dict[str, Any], estimate: dict[str, Any] | None) -> None:
        self.stages = {s["name"]: StageProgress(s["name"], s["kind"]) for s in stages}
        self.sampling = [s["name"] for s in stages if "Sample" in s["gives"]]
        self.budget = {name: limit for name, limit in budget.items() if limit is not None}
        self.estimate = estimate or {}
        self.ended: str | None = None
        self.current: str | None = None
        self.began = self.last = 0.0  # of this attempt
        self.seconds = 0.0  # of the attempts before
        self.lines: list[dict[str, Any]] = []
        self.warnings: list[str] = []  # of this attempt
        self.window: deque[Reading] = deque()

    def feed(self, event: Event) -> None:
        kind = event["event"]
        if kind == "run.started":
            self._begin(event)
        elif kind == "warning":
            self.warnings.append(event["message"])
        elif kind.startswith("run."):
            self._end(kind.removeprefix("run."))
        elif kind == "stage.skipped":
            self.stages[event["stage"]].state = "skipped"
        elif kind in ("stage.started", "progress", "stage.finished", "stage.kept", "stage.reused"):
            stage = self.stages.setdefault(event["stage"], StageProgress(event["stage"]))
            getattr(self, "_" + kind.rpartition(".")[2])(stage, event)
        self.last = max(self.last, event["time"])

    def _begin(self, event: Event) -> None:
        self.seconds += self.last - self.began
        self.began = self.last = event["time"]
        self.ended = self.current = None
        self.lines, self.warnings = [], []
        self.window.clear()
        for name, stage in self.stages.items():
            self.stages[name] = StageProgress(name, stage.kind)

    def _end(self, state: str) -> None:
        self.ended = state
        self.lines = []
        if self.current and self.stages[self.current].state == "running":
            self.stages[self.current].state = "stopped"

    def _started(self, stage: StageProgress, event: Event) -> None:
        self.current = stage.name
        self.window.clear()
        stage.state, stage.kind, stage.started = "running", event["kind"], event["time"]
        stage.total = event["records"]

    def _progress(self, stage: StageProgress, event: Event) -> None:
        spent = event.get("spent") or {}
        stage.done, stage.total, stage.failed = event["done"], event["total"], event.get("failed", 0)
        stage.note = {name: value for name, value in event.items() if name not in _PLAIN}
        self.lines = event.get("lines") or []
        self.window.append(Reading(event["time"], stage.done, spent.get("calls", 0), spent.get("tokens", 0)))
        while self.window[-1].time - self.window[0].time > WINDOW:
            self.window.popleft()

    def _finished(self, stage: StageProgress, event: Event) -> None:
        stage.state, stage.seconds, stage.counts = "done", event["seconds"], event
        stage.done = stage.total = event["taken"]
        self.lines = []

    def _kept(self, stage: StageProgress, event: Event) -> None:
        stage.state, stage.kind, stage.counts = "kept", event["kind"], event
        stage.done = stage.total = event["taken"]

    _reused = _kept

    # What is made of it.

    def state(self, now: float, ledger: Ledger) -> dict[str, Any]:
        """Plain data: what `--json` prints and the display draws. `now` is the time of the last event for a run that
        has ended."""
        spent = _sum(ledger.values())
        stages = [self._line(stage, now, ledger) for stage in self.stages.values()]
        samples = [s["given"] for s in stages if s["name"] in self.sampling and s["state"] in ("done", "kept")]
        left = None if self.ended else self._run_left(stages)
        if any(name == KILLED for name, _role in ledger):  # no stage, but what the stages cost does not hold it
            stages.append(self._line(StageProgress(KILLED, state="charged"), now, ledger))
        return {
            "stage": self.current,
            "seconds": round(self.seconds + now - self.began, 1) if self.began else 0.0,
            "spent": spent | {"usd_per_sample": _each(spent["usd"], samples[-1] if samples else 0)},
            "budget": self._left(spent, self.seconds + now - self.began),
            "rate": None if self.ended else self._rate(now),
            "lines": [] if self.ended else self.lines,
            "warnings": self.warnings,
            "left": left,
            "stages": stages,
        }

    def _line(self, stage: StageProgress, now: float, ledger: Ledger) -> dict[str, Any]:
        counts, over = stage.counts, stage.state in ("done", "kept")
        spent = _sum(paid for (name, _role), paid in ledger.items() if name == stage.name)
        given = counts.get("given") if over else None
        return {
            "name": stage.name,
            "kind": stage.kind,
            "state": stage.state,
            "done": stage.done,
            "total": stage.total,
            "given": given,
            "rejected": counts.get("rejected", {}),
            "failed": counts.get("failed", {}) if over else stage.failed,
            "unreachable": counts.get("unreachable", 0),
            "seconds": stage.seconds if over else round(now - stage.started, 1) if stage.state == "running" else None,
            "left": self._stage_left(stage, now) if stage.state == "running" and not self.ended else None,
            "spent": spent | {"usd_per_record": _each(spent["usd"], given or 0)},
            "note": stage.note if stage.state == "running" else {},
        }

    def _rate(self, now: float) -> dict[str, float] | None:
        """Answers and tokens a second, over the last minute of this stage."""
        seconds = now - self.window[0].time if self.window else 0.0
        if len(self.window) < 2 or seconds <= 0:
            return None
        first, last = self.window[0], self.window[-1]
        return {
            "answers": round((last.calls - first.calls) / seconds, 3),
            "tokens": round((last.tokens - first.tokens) / seconds, 1),
            "over": round(seconds, 1),
        }

    def _stage_left(self, stage: StageProgress, now: float) -> float | None:
        """Seconds until its records are through, at the rate of the last minute."""
        if len(self.window) < 2:
            return None
        made, seconds = self.window[-1].done - self.window[0].done, now - self.window[0].time
        return round((stage.total - stage.done) * seconds / made, 1) if made > 0 else None

    def _run_left(self, stages: list[dict[str, Any]]) -> float | None:
        """The stage's own rest, and what the estimate says of the stages behind it; None where it says nothing."""
        expected = self.estimate.get("stages", {})
        left = 0.0
        for stage in stages:
            known = stage["left"] if stage["state"] == "running" else expected.get(stage["name"], {}).get("seconds")
            if stage["state"] in ("done", "kept", "skipped"):
                continue
            if known is None:
                return None
            left += known if isinstance(known, float) else sum(known) / 2
        return round(left, 1)

    def _left(self, spent: dict[str, Any], seconds: float) -> dict[str, dict[str, float]]:
        used = {"usd": spent["usd"], "calls": spent["calls"], "tokens": spent["tokens"], "seconds": seconds}
        return {
            name: {"limit": limit, "used": round(used[name], 6), "left": round(max(0.0, limit - used[name]), 6)}
            for name, limit in self.budget.items()
        }


def _sum(paid: Any) -> dict[str, Any]:
    """Several lines of the ledger as one."""
    names = ("calls", "tokens_in", "tokens_out", "tokens_cached", "tokens_reasoning", "nano_usd", "unanswered")
    totals = dict.fromkeys(names, 0)
    for line in paid:
        for name in names:
            totals[name] += getattr(line, name)
    return {**totals, "tokens": totals["tokens_in"] + totals["tokens_out"], "usd": totals.pop("nano_usd") / 1e9}


def _each(usd: float, count: int) -> float | None:
    return usd / count if usd and count else None


def estimate_path(workspace: Workspace, run: str) -> Path:
    return workspace.root / "estimates" / run / "estimate.json"


def kept_estimate(workspace: Workspace, run: str) -> dict[str, Any] | None:
    """The last estimate of this very run; None where nobody asked for one."""
    path = estimate_path(workspace, run)
    return orjson.loads(path.read_bytes()) if path.exists() else None


def run_states(workspace: Workspace) -> list[dict[str, Any]]:
    """Every run in few words, the one started last first: its state and where it is, by its last event."""
    found = []
    for manifest in workspace.manifests():
        folder = RunFolder(workspace.runs / str(manifest["id"]))
        last = last_event(folder.path / "events.ndjson")
        ended = last.get("event", "").startswith("run.") and last["event"] != "run.started"
        state = "running" if folder.running() else last["event"].removeprefix("run.") if ended else "interrupted"
        names = ("id", "name", "started")
        found.append({**{name: manifest[name] for name in names}, "state": state, "stage": last.get("stage")})
    return found


class Watch:
    """A run's state from outside, kept up to date by reading what its event file has grown by."""

    def __init__(self, workspace: Workspace, name: str) -> None:
        self.workspace = workspace
        self.folder = RunFolder(workspace.find_run(name))
        manifest = self.folder.manifest
        self.progress = Progress(
            manifest.get("stages", []), manifest.get("budget", {}), kept_estimate(workspace, manifest["id"])
        )
        self._tail = Tail(self.folder.path / "events.ndjson")

    def news(self) -> list[Event]:
        """Events since the last look."""
        fresh = self._tail.read()
        for event in fresh:
            self.progress.feed(event)
        return fresh

    def state(self) -> dict[str, Any]:
        """Everything. `interrupted`: the process died; the same command goes on."""
        running = self.folder.running()
        self.news()
        manifest, summary, progress = self.folder.manifest, self.folder.summary, self.progress
        state = "running" if running else progress.ended or "interrupted"
        if state == "interrupted":  # nothing is in flight any more
            progress.ended = state
        elif running and progress.ended == "interrupted":  # said before it was gone on with
            progress.ended = None
        now = time.time() if running else progress.last
        told = state not in ("running", "interrupted")
        return {
            "id": manifest["id"],
            "name": manifest["name"],
            "state": state,
            "started": manifest["started"],
            **progress.state(now, self.workspace.store.spent_by_stage(manifest["id"])),
            "error": summary.get("error") if told else None,
            "hint": summary.get("hint") if told else None,
            "folder": str(self.folder.path),
        }
