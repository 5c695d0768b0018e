"""Progress of a run on standard error: a bar on a terminal, a line now and then elsewhere, nothing when asked."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from gristmill.core.events import Event, Listener

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


@contextmanager
def make_display(*, quiet: bool) -> Iterator[Listener]:
    if quiet:
        yield lambda _event: None
    elif sys.stderr.isatty():
        with _progress() as progress:
            yield _Bars(progress)
    else:
        yield _Lines()


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        expand=True,
    )


class _Bars:
    """One bar a stage."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, event: Event) -> None:
        stage = event.get("stage", "")
        if event["event"] == "stage.started":
            self.tasks[stage] = self.progress.add_task(stage, total=event["records"] or None, note="")
        elif event["event"] == "progress" and stage in self.tasks:
            self.progress.update(self.tasks[stage], completed=event["done"], total=event["total"], note=_note(event))
        elif event["event"] == "stage.finished" and stage in self.tasks:
            task = self.tasks[stage]
            total = self.progress.tasks[task].total or max(event["taken"], 1)
            self.progress.update(task, completed=total, total=total, note=f"{event['given']} out")
        elif event["event"] == "warning":
            self.progress.console.print(f"warning: {event['message']}", markup=False)


class _Lines:
    """A line when a stage starts and ends, and every ten seconds between."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, event: Event) -> None:
        kind, stage = event["event"], event.get("stage", "")
        if kind == "stage.started":
            self._say(f"{stage}: {event['records']} records in")
        elif kind == "stage.finished":
            dropped = sum(event["rejected"].values()) + sum(event["failed"].values())
            self._say(f"{stage}: {event['given']} out, {dropped} dropped, {event['seconds']:.1f} s")
        elif kind == "stage.reused":
            self._say(f"{stage}: kept from an earlier run")
        elif kind == "warning":
            self._say(f"warning: {event['message']}")
        elif kind == "progress" and time.monotonic() - self.last > 10:
            self._say(f"{stage}: {event['done']:g} of {event['total']:g} {_note(event)}".rstrip())

    def _say(self, text: str) -> None:
        self.last = time.monotonic()
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def _note(event: Event) -> str:
    shown = {k: v for k, v in event.items() if k not in ("event", "stage", "done", "total", "spent", "time")}
    parts = [f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in shown.items() if v]
    spent = event.get("spent") or {}
    if spent.get("calls"):
        parts.append(f"{spent['calls']} calls, {spent['tokens']} tokens")
    return ", ".join(parts)
