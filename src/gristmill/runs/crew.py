"""Workers over one feed: no barrier between them, no task per record, and as many as are wanted at the moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from gristmill.runs.feed import Feed, Job

PULSE = 0.05
"""Seconds between two looks at how many are wanted, and whether to stop."""

BREATH = 0.02
"""Seconds that jobs which never wait may keep the event loop from everybody else."""


class Crew:
    """`width` says how many jobs should be under way; `pulse` is called at every look. When one worker fails, the
    others end what they do, so that what is being answered is kept."""

    def __init__(
        self, feed: Feed, work: Callable[[Job], Awaitable[None]], *, width: Callable[[], int], pulse: Callable[[], None]
    ) -> None:
        self.feed = feed
        self.work = work
        self.width = width
        self.pulse = pulse
        self.ended = False  # nothing is left to take, or nothing more is wanted
        self._workers: set[asyncio.Task[None]] = set()
        self._surplus = 0
        self._breathe = 0.0
        self._error: BaseException | None = None
        self._one_left = asyncio.Event()

    async def run(self) -> None:
        try:
            while self._hire():
                await self._look()
                self.pulse()
        finally:
            self.ended = True
            for worker in self._workers:
                worker.cancel()
            await asyncio.gather(*self._workers, return_exceptions=True)
            await self.feed.close()
        if self._error is not None:
            raise self._error

    @property
    def failed(self) -> bool:
        return self._error is not None

    def end(self) -> None:
        """No more jobs; those under way are ended."""
        self.ended = self.feed.closed = True

    def _hire(self) -> bool:
        """Bring the crew to the wanted size; whether anyone is at work."""
        wanted = 0 if self.ended else max(1, self.width())
        for _ in range(wanted - len(self._workers)):
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._leave)
        self._surplus = max(0, len(self._workers) - wanted)
        return bool(self._workers)

    async def _look(self) -> None:
        self._one_left.clear()
        try:
            async with asyncio.timeout(PULSE):
                await self._one_left.wait()
        except TimeoutError:
            return

    def _leave(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and (error := worker.exception()) is not None:
            self._error = self._error or error
            self.end()
        if self.ended:
            self._one_left.set()

    async def _work(self) -> None:
        while not self.ended:
            if self._surplus:
                self._surplus -= 1
                return
            job = self.feed.take() or await self.feed.more()
            if job is None:
                self.ended = True
                return
            await self.work(job)
            if time.monotonic() > self._breathe:
                await asyncio.sleep(0)
                self._breathe = time.monotonic() + BREATH
