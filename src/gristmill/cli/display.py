"""What a person sees of a run while it goes on: the same for `run` and, in another process, for `status --watch`.

On a terminal a picture, drawn again twice a second; elsewhere a line per change, so that a log of it can be read.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from gristmill.core.errors import StoreError
from gristmill.core.events import Event, Listener

if TYPE_CHECKING:
    from gristmill.runs.plan import Plan
    from gristmill.runs.status import Ledger
    from gristmill.runs.workspace import Workspace

REFRESH = 2.0
"""Pictures a second: each costs some milliseconds of the processor that also runs the calls."""

SILENCE = 10.0
"""Seconds between two lines about a stage that goes on as it did."""

State = dict[str, Any]


@contextmanager
def make_display(plan: Plan, workspace: Workspace, *, quiet: bool) -> Iterator[Listener]:
    """A listener to a run's events that shows them on standard error; it hears nothing when asked to be quiet."""
    if quiet:
        yield lambda _event: None
    elif sys.stderr.isatty():
        with _live(plan, workspace) as listener:
            yield listener
    else:
        heard = _Heard(plan, workspace, _say)
        lines = Lines(_say, heard.state)

        def hear(event: Event) -> None:
            heard(event)
            lines(event)

        yield hear


class _Heard:
    """A run's state, from the events of this process. Drawn in another thread than the one that hears."""

    def __init__(self, plan: Plan, workspace: Workspace, say: Callable[[str], None]) -> None:
        self.say = say
        self.plan = plan
        self.workspace = workspace
        self.run: str | None = None
        self._ledger: Ledger = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        from gristmill.cli.forecast import first_line
        from gristmill.runs.manifest import stage_list
        from gristmill.runs.status import Progress, kept_estimate

        if event["event"] == "run.started":
            estimate = kept_estimate(self.workspace, event["run"])
            if said := first_line(estimate, self.plan):
                self.say(said)
            self.progress = Progress(stage_list(self.plan), self.plan.recipe.budget.model_dump(), estimate)
            self.run = event["run"]
        with self._lock:
            self.progress.feed(event)

    def state(self) -> State | None:
        """None until the run has started."""
        if self.run is None:
            return None
        with suppress(StoreError):  # the run hears of it too, and ends; until then the last picture stands
            self._ledger = self.workspace.store.spent_by_stage(self.run)
        with self._lock:
            found = self.progress.state(time.time(), self._ledger)
        state = self.progress.ended or "running"
        return {"id": self.run, "name": self.plan.recipe.name, "state": state, "error": None, "hint": None, **found}


@contextmanager
def _live(plan: Plan, workspace: Workspace) -> Iterator[Listener]:
    from rich.console import Console
    from rich.live import Live

    from gristmill.cli.picture import Picture

    console = Console(stderr=True, highlight=False, markup=False)
    heard = _Heard(plan, workspace, console.print)

    def draw() -> Any:
        state = heard.state()
        return Picture(state) if state else ""

    def hear(event: Event) -> None:
        heard(event)
        if said := warning_of(event):
            console.print(said)

    with Live(get_renderable=draw, console=console, refresh_per_second=REFRESH, transient=True):
        yield hear


def warning_of(event: Event) -> str | None:
    """What a person should hear of at once."""
    kind = event["event"]
    if kind == "warning":
        return f"warning: {event['message']}"
    if kind == "metric" and "resumed_from" in event:
        return f"{event['stage']}: goes on from {event['resumed_from']}"
    if kind == "model.down":
        return f"{event['role']}: {event['model']} is down: {event['error']}"
    return f"{event['role']}: {event['model']} serves again" if kind == "model.up" else None


class Lines:
    """A line when a stage starts or ends, at every warning, and every ten seconds between."""

    def __init__(self, say: Callable[[str], None], state: Callable[[], State | None]) -> None:
        self.say = say
        self.state = state
        self.last = time.monotonic()

    def __call__(self, event: Event) -> None:
        said = self._words(event)
        if said:
            self.last = time.monotonic()
            self.say(said)

    def _words(self, event: Event) -> str | None:
        kind, stage = event["event"], event.get("stage", "")
        if kind == "stage.started":
            from gristmill.runs.figures import counted

            return f"{stage}: {counted(event['records'], 'record')} in"
        if kind == "stage.finished":
            dropped = sum(event["rejected"].values()) + sum(event["failed"].values())
            return f"{stage}: {event['given']} out, {dropped} dropped, {event['seconds']:.1f} s"
        if kind == "stage.reused":
            return f"{stage}: {event['given']} kept from an earlier run"
        if kind == "stage.skipped":
            return f"{stage}: not needed, {event['why']}"
        if kind == "stage.kept":
            return f"{stage}: {event['given']} kept"
        if kind == "progress" and time.monotonic() - self.last > SILENCE:
            return self._going_on(event)
        return warning_of(event)

    def _going_on(self, event: Event) -> str:
        from gristmill.cli.picture import left_words, line_words, spent_words
        from gristmill.runs.figures import amount

        parts = [f"{event['stage']}: {amount(event['done'])} of {amount(event['total'])}"]
        state = self.state()
        if state is not None:
            rate = state["rate"]
            parts += [f"{amount(rate['answers'])} answers/s"] if rate and rate["answers"] else []
            parts += [line_words(line) for line in state["lines"]]
            parts += [words for words in (spent_words(state), left_words(state)) if words]
        return "; ".join(parts)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
