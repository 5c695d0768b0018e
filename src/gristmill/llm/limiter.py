"""How many requests one line (provider, model and key) may have in flight, and how fast it may send them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from gristmill.llm.quota import Quota

START, CEILING = 8, 256
"""Where an adaptive limit begins, and how far it goes, where neither the recipe nor memory says."""


class Limiter:
    """Requests enter before they are sent and leave at the last byte of the answer (`left`), when they are refused
    (`refused`) or when they fail (`failed`): exactly one of the three for each that entered. First come, first served.
    """

    def __init__(
        self,
        *,
        ceiling: int = CEILING,
        start: int = START,
        adaptive: bool = True,
        rpm: int | None = None,
        tpm: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ceiling = ceiling
        self.limit = min(start, ceiling)
        self.in_flight = 0
        self.why = "as configured"
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    def try_enter(self, tokens: int) -> bool:
        """Enter at once if there is room and nobody waits. `tokens`: the most the request can take, in and out."""
        if self.in_flight >= self.limit or self._waiters:
            return False
        self.in_flight += 1
        return True

    async def enter(self, tokens: int) -> None:
        """Enter, in turn. Cancelled while it waits, it takes nothing."""
        if self.try_enter(tokens):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    def left(self, seconds: float, tokens: int, quota: Quota | None = None, output: int | None = None) -> None:
        """An answer is here after so many seconds. `tokens` in and out (0 where unknown), of which `output` written."""
        self._leave()

    def refused(self, wait: float | None, quota: Quota | None = None, seconds: float = 0.0) -> None:
        """The provider would not take the request now, and said so after so many seconds."""
        self._leave()

    def failed(self, seconds: float = 0.0) -> None:
        """No answer came: an error, a time-out, a broken connection, a cancelled caller."""
        self._leave()

    def allot(self, share: float, processes: int = 1) -> None:
        """What part of the line's limits is this process's; 0 holds everything back."""

    def _leave(self) -> None:
        self.in_flight -= 1
        while self._waiters and self.in_flight < self.limit:
            turn = self._waiters.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)
