"""Brings a run's metrics to its sinks, and keeps their troubles away from it.

Opening is loud: it happens before the run starts. From then on each sink has a thread and a bounded queue of its own.
The loop that makes the metrics never waits: what does not fit is dropped, counted and said. A sink that raises is said
once, as a warning, and gets nothing more in this attempt. What is delivered is remembered in the run's folder, by
metric and step; the next attempt begins with what was left behind, and a step that is done again is not sent twice.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path

import orjson

from gristmill.core.errors import ConfigError, GristmillError, StageFailure, boundary
from gristmill.core.events import Event, EventLog, read_events
from gristmill.core.files import atomic
from gristmill.core.logs import log
from gristmill.core.secrets import scrub
from gristmill.core.stage import load_code
from gristmill.runs.folder import TRAINING, RunFolder
from gristmill.runs.plan import Plan
from gristmill.runs.sinks.kinds import check_sink, sinks
from gristmill.runs.sinks.sink import About, Point, Sink, SinkConfig

WAITING = 10_000
"""Points that a sink may be behind."""

GATHER = 1.0
"""Seconds of points that go to a sink together."""

LAST_WORDS = 30.0
"""Seconds that a sink has at the end of an attempt for what it is behind, and to close."""

FOLDER = "sinks"


class Following:
    """The open sinks of one attempt."""

    def __init__(self, plan: Plan, folder: RunFolder, *, name: str | None) -> None:
        self.folder = folder
        self._open: list[Follower] = []
        recipe = orjson.loads(scrub(orjson.dumps(plan.recipe.source.data, default=str).decode()))
        for sink, config in plan.recipe.sinks.items():
            check_sink(sink, config)
            place = folder.path / FOLDER / sink
            place.mkdir(parents=True, exist_ok=True)
            about = About(folder.path.name, name or plan.recipe.name, recipe, plan.recipe.base, place)
            self._open.append(Follower(sink, _opened(sink, config, about), place))

    @contextmanager
    def hearing(self, events: EventLog) -> Iterator[None]:
        """Bring them what an earlier attempt left behind, then every metric as it is said."""
        if not self._open:
            yield
            return
        before = [point for event in read_events(self.folder.path / "events.ndjson") if (point := point_of(event))]
        ended = ["failed"]

        def hear(event: Event) -> None:
            if point := point_of(event):
                for follower in self._open:
                    follower.put(point)
            elif event["event"].startswith("run.") and event["event"] != "run.started":
                ended[0] = event["event"].removeprefix("run.")

        for follower in self._open:
            follower.start(before, events)
        events.listeners.append(hear)
        try:
            yield
        finally:
            events.listeners.remove(hear)
            self._let_go(ended[0])

    def _let_go(self, state: str) -> None:
        """All at once: each has its time to end, and none has to wait for another."""
        papers = {path.relative_to(self.folder.path / TRAINING).as_posix(): path for path in self._papers()}
        if (report := self.folder.path / "report.html").exists():
            papers["report.html"] = report
        for follower in self._open:
            follower.end(state, papers)
        deadline = time.monotonic() + LAST_WORDS
        for follower in self._open:
            follower.join(max(0.0, deadline - time.monotonic()))

    def _papers(self) -> list[Path]:
        return sorted(path for path in self.folder.path.glob(f"{TRAINING}/*/*") if path.is_file())


def _opened(name: str, config: SinkConfig, about: About) -> Sink:
    """Whatever its library raises now ends the run before it starts."""
    try:
        with boundary(f"sinks.{name}"):
            sink: Sink = load_code(sinks()[name].open)(config, about)
            return sink
    except StageFailure as failed:
        hint = f"Mend it, or leave the sink out: --set sinks.{name}=null"
        raise ConfigError(f"sinks.{name} cannot be opened: {failed.failure.error}", hint) from failed.__cause__


class Follower:
    """One sink, its thread, and how far it has got."""

    def __init__(self, name: str, sink: Sink, folder: Path) -> None:
        self.name = name
        self.sink = sink
        self._kept = folder / "reached.json"
        self._reached: dict[str, int] = orjson.loads(self._kept.read_bytes()) if self._kept.exists() else {}
        self._queue: queue.Queue[Point | None] = queue.Queue(WAITING)
        self._dropped = 0
        self._gone = False
        self._ending = threading.Event()
        self._last: tuple[str, dict[str, Path]] = ("failed", {})

    def start(self, before: Sequence[Point], events: EventLog) -> None:
        """`before`: what earlier attempts said. Their words without a step are new to a sink that is new itself."""
        self._events = events
        left = [point for point in before if point.step is not None or not self._reached]
        run = copy_context().run  # whose log it is
        self._thread = threading.Thread(target=run, args=(self._run, left), name=f"sink {self.name}", daemon=True)
        self._thread.start()

    def put(self, point: Point) -> None:
        """From the thread of the stage: at once, whatever the sink is doing."""
        if self._gone:
            return
        try:
            self._queue.put_nowait(point)
        except queue.Full:
            self._dropped += 1

    def end(self, state: str, artifacts: dict[str, Path]) -> None:
        self._last = (state, artifacts)
        self._ending.set()
        with suppress(queue.Full):  # a full one needs no waking
            self._queue.put_nowait(None)

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._gone = True
            self._say(f"did not end in {LAST_WORDS:g} s and is left behind")

    def _run(self, left: Sequence[Point]) -> None:
        try:
            with boundary(f"sink {self.name}"):
                self._write(left)
                while not (self._ending.is_set() and self._queue.empty()):
                    self._write(self._gather())
                if self._dropped:
                    self._say(f"was too slow: {self._dropped} points were dropped")
                self.sink.close(*self._last)
        except (StageFailure, GristmillError) as failed:
            self._gone = True
            self._say(f"failed, and the run goes on without it: {failed}")

    def _gather(self) -> list[Point]:
        """What comes in `GATHER` seconds, or is there when the attempt has ended."""
        points: list[Point | None] = []
        until = time.monotonic() + GATHER
        with suppress(queue.Empty):
            while not self._ending.is_set() and (left := until - time.monotonic()) > 0:
                points.append(self._queue.get(timeout=left))
        with suppress(queue.Empty):
            while len(points) < WAITING:
                points.append(self._queue.get_nowait())
        return [point for point in points if point is not None]

    def _write(self, points: Sequence[Point]) -> None:
        """Deliver what was not delivered before, and remember it."""
        reached, fresh = dict(self._reached), []
        for point in points:
            values = point.values
            if point.step is not None:
                values = {n: v for n, v in values.items() if point.step > reached.get(f"{point.stage}/{n}", -1)}
                reached |= {f"{point.stage}/{n}": point.step for n in values}
            if values:
                fresh.append(replace(point, values=values))
        if not fresh:
            return
        self.sink.write(fresh)
        self._reached = reached
        with atomic(self._kept) as file:
            file.write(orjson.dumps(reached, option=orjson.OPT_INDENT_2))

    def _say(self, what: str) -> None:
        message = f"the sink {self.name} {what}"
        self._events.emit("warning", sink=self.name, message=message)
        log("warning", sink=self.name, message=message)


def point_of(event: Event) -> Point | None:
    """What a metric event says; None for any other event."""
    if event["event"] != "metric":
        return None
    plain = {name: value for name, value in event.items() if name not in _ENVELOPE}
    values = {n: scrub(v) if isinstance(v, str) else v for n, v in plain.items() if isinstance(v, int | float | str)}
    return Point(event["stage"], event.get("step"), event["time"], values)


_ENVELOPE = ("event", "time", "stage", "step")
