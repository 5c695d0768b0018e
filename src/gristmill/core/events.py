"""Events are the only way to say anything: progress, metrics, cost, warnings. One JSON line each, as it happens.

The file is the record of a run over all its attempts: a torn last line (the machine died while writing) is cut off
when the file is opened again, and everything else about a run's past can be read back from it.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.secrets import scrub

LONGEST = 1 << 20
"""Bytes of a line, at most."""

CLOSED = -1
"""In place of a descriptor."""

Event = dict[str, Any]
Listener = Callable[[Event], None]


class LineFile:
    """A file of JSON lines that only grows: each line whole or not there, from any thread, without a secret in it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._cut_torn_tail()

    def _cut_torn_tail(self) -> None:
        size = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, min(size, LONGEST), max(0, size - LONGEST))
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(self._fd, size - (len(tail) - (tail.rfind(b"\n") + 1)))

    def append(self, line: str) -> None:
        """All of it or nothing: on a full disk, half a line would swallow the one after it. Of what comes after the end
        (from a task or a thread that outlived it) nothing: the descriptor may be another file's by then."""
        raw = scrub(line).encode(errors="backslashreplace") + b"\n"  # a broken file name's bytes, as JSON escapes
        with self._lock:
            if self._fd == CLOSED:
                return
            size = os.fstat(self._fd).st_size
            if os.write(self._fd, raw) < len(raw):
                os.ftruncate(self._fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def close(self) -> None:
        with self._lock:
            if self._fd != CLOSED:
                os.close(self._fd)
                self._fd = CLOSED


class EventLog:
    """Appends events to a file and shows them to listeners (a progress bar, a sink).

    Their times are those of the wall clock when it was opened, gone on evenly: a clock that is put right meanwhile
    makes no stage of a run hours long, and uses up no budget of seconds."""

    def __init__(self, path: Path, *listeners: Listener) -> None:
        self.listeners = list(listeners)
        self._lines = LineFile(path)
        self._ahead = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)

    def emit(self, event: str, **data: Any) -> None:
        line: Event = {"time": round(self._ahead + time.clock_gettime(time.CLOCK_BOOTTIME), 3), "event": event, **data}
        self._lines.append(orjson.dumps(line, option=orjson.OPT_SERIALIZE_NUMPY).decode())
        for listener in self.listeners:
            listener(line)

    def close(self) -> None:
        self._lines.close()


def read_events(path: Path) -> Iterator[Event]:
    """Every whole line of such a file, oldest first; a line still being written is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield orjson.loads(line)


def last_event(path: Path) -> Event:
    """The last whole line of such a file; empty where there is none."""
    if not path.exists():
        return {}
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LONGEST))
        lines = file.read().rpartition(b"\n")[0].splitlines()
    event: Event = orjson.loads(lines[-1]) if lines else {}
    return event


class Tail:
    """The whole lines that such a file has got since the last look."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._at = 0

    def read(self) -> list[Event]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self._at)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._at += len(whole)
        return [orjson.loads(line) for line in whole.splitlines()]
