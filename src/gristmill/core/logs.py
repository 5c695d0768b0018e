"""The log of a run: one JSON line for what is unusual, with the run, stage, row and request it happened to.

    log("refused", wait=2.0)            a retry, a refusal, a time-out, a dead letter, a limit that moved, a fail-over
    detail("answered", seconds=0.8)     every single call; written only where GRISTMILL_LOG=debug (`--log-level debug`)

Events say how a run goes on; the log says what went wrong on the way, and to whom. Who is meant comes from context
variables: the executor sets the stage and the row, the client the request. What nobody listens to costs a lookup: the
file is made, and structlog imported, by the first line. A line that cannot be written (the disk is full, the run has
ended) is left out: what must not be lost is in the store, and the store's own error ends the run.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gristmill.core.events import LineFile

RUN: ContextVar[str | None] = ContextVar("run", default=None)
STAGE: ContextVar[str | None] = ContextVar("stage", default=None)
ROW: ContextVar[str | None] = ContextVar("row", default=None)
REQUEST: ContextVar[str | None] = ContextVar("request", default=None)
_IDS = (RUN, STAGE, ROW, REQUEST)

LEVEL = "GRISTMILL_LOG"
"""Environment variable: `debug` writes each call too. Child processes inherit it."""

Level = Literal["info", "debug"]


class _Sink:
    """What structlog writes to: one method for each level."""

    def __init__(self, lines: LineFile) -> None:
        self.info = self.debug = lines.append


class _Log:
    """One run's log file, opened by its first line."""

    def __init__(self, path: Path, *, debug: bool) -> None:
        self.path = path
        self.debug = debug
        self._lock = threading.Lock()
        self._lines: LineFile | None = None
        self._logger: Any = None
        self._closed = False

    def write(self, level: Level, event: str, data: dict[str, Any]) -> None:
        with suppress(OSError):
            if self._logger is None and not self._opened():
                return
            getattr(self._logger, level)(event, **data)

    def _opened(self) -> bool:
        import structlog

        from gristmill.core.events import LineFile

        with self._lock:
            if self._closed or self._logger is not None:
                return not self._closed
            self._lines = LineFile(self.path)
            self._logger = structlog.wrap_logger(
                _Sink(self._lines),
                processors=[
                    structlog.processors.TimeStamper(fmt="iso", key="time"),
                    structlog.processors.add_log_level,
                    _with_ids,
                    structlog.processors.JSONRenderer(serializer=_json),
                ],
                wrapper_class=structlog.BoundLogger,
            )
            return True

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._lines is not None:
                self._lines.close()


_LOG: ContextVar[_Log | None] = ContextVar("log", default=None)


def log(event: str, **data: Any) -> None:
    """Something unusual happened. Outside a run it is said nowhere."""
    if (current := _LOG.get()) is not None:
        current.write("info", event, data)


def detail(event: str, **data: Any) -> None:
    """Something usual happened, for those who asked to see all of it."""
    if (current := _LOG.get()) is not None and current.debug:
        current.write("debug", event, data)


def detailed() -> bool:
    """Whether `detail` is listened to: for callers to whom gathering its data costs something."""
    return (current := _LOG.get()) is not None and current.debug


@contextmanager
def logging_to(path: Path, *, run: str) -> Iterator[None]:
    """All that is logged from here on, in this context and the tasks and threads started from it, goes to `path`. The
    environment says how much."""
    current = _Log(path, debug=os.environ.get(LEVEL) == "debug")
    here, who = _LOG.set(current), RUN.set(run)
    try:
        yield
    finally:
        RUN.reset(who)
        _LOG.reset(here)
        current.close()


def _with_ids(_logger: object, _method: str, data: MutableMapping[str, Any]) -> dict[str, Any]:
    """Time, level, event, then whom it happened to, then the rest."""
    head = {key: data.pop(key) for key in ("time", "level", "event")}
    ids = {name.name: data.pop(name.name, name.get()) for name in _IDS}
    return {**head, **{key: value for key, value in ids.items() if value is not None}, **data}


def _json(data: dict[str, Any], **_: Any) -> str:
    return json.dumps(data, ensure_ascii=False, default=str)
