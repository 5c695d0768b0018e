"""Waits that a stop request ends at once: for a slot, for room in the budget, before another attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from gristmill.core.errors import Cancelled

LOOK_SECONDS = 0.2  # between two looks at whether the run is to stop, while anyone waits


class Waits:
    """One timer for all who wait: a run has hundreds of them."""

    def __init__(self, stopping: Callable[[], bool]) -> None:
        self._stopping = stopping
        self._waiting: set[asyncio.Task[Any]] = set()
        self._woken: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def until(self, end: Coroutine[Any, Any, None]) -> None:
        """Await it; Cancelled if the run is to stop before it ends."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a wait belongs to a task")
        self._waiting.add(task)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        try:
            await end
        except asyncio.CancelledError:
            if task in self._woken and task.uncancel() == 0:
                raise stopped() from None
            raise
        finally:
            self._waiting.discard(task)
            self._woken.discard(task)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        if self._stopping():
            for task in self._waiting - self._woken:
                self._woken.add(task)
                task.cancel()
        self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)


def stopped() -> Cancelled:
    return Cancelled("stopped", "Run the same command again to go on.")


def cancelling() -> bool:
    """Whether it is the task at work that is being cancelled, not what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
