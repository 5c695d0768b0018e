"""How many requests one line (provider, model and key) may have in flight, and how fast it may send them.

Three limits at once: the level that `climb` finds best, the rates that `pace` keeps, and this process's share of both
where others use the same line (`shares`). A Retry-After holds back only the request that was refused; it is its
sender who waits, outside. Nothing here polls: whoever leaves wakes the next, and one timer stands while a rate holds
them back. Everything takes the same time however many wait.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from gristmill.core.logs import log
from gristmill.llm.limits.climb import Climb
from gristmill.llm.limits.pace import Pace
from gristmill.llm.limits.quota import Quota

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
        self.in_flight = 0
        self.name = ""  # of the line, in logs
        self.limit = min(start, ceiling)
        self._adaptive = adaptive
        self._given = start >= ceiling  # by the recipe: nothing to remember
        self._clock = clock
        self._climb = Climb(start, ceiling, moved=self._log)
        self._pace = Pace(rpm, tpm)
        self._paced = self._pace.limits
        self._share = 1.0
        self._processes = 1
        self._waiters: deque[tuple[asyncio.Future[None], int]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        return len(self._waiters)

    @property
    def why(self) -> str:
        """Why the limit is what it is, in a few words."""
        if not self._share:
            return "waits until other processes make room"
        held = self._paced and self._waiters and self.in_flight < self.limit
        words = self._pace.why if held else self._climb.why
        return f"{words}, shared with {self._processes - 1} more" if self._processes > 1 else words

    def try_enter(self, tokens: int) -> bool:
        """Enter at once if there is room and nobody waits. `tokens`: the most the request can take, in and out."""
        if self.in_flight >= self.limit or self._waiters:
            return False
        now = self._clock()
        if self._paced:
            if now < self._pace.due:
                return False
            self._pace.take(now, tokens)
        self.in_flight += 1
        self._climb.stamps -= now
        return True

    async def enter(self, tokens: int) -> None:
        """Enter, in turn. Cancelled while it waits, it takes nothing."""
        if self.try_enter(tokens):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((turn, tokens))
        if self._timer is None:
            self._admit(self._clock())
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it had been let in
                self.failed()
            raise

    def left(self, seconds: float, tokens: int, quota: Quota | None = None, output: int | None = None) -> None:
        """An answer is here after so many seconds. `tokens` in and out (0 where unknown), of which `output` written."""
        now = self._leave(tokens)
        if quota is not None:
            self._told(now, quota, tokens)
        if self._adaptive:
            self._climb.answered(now, seconds, output or tokens or 1, self.in_flight)
            self._set_limit()
        if self._waiters:
            self._admit(now)

    def refused(self, wait: float | None, quota: Quota | None = None, seconds: float = 0.0) -> None:
        """The provider would not take the request now, and said so after so many seconds."""
        now = self._leave(0)
        if quota is not None:
            self._told(now, quota, 0)
        if self._adaptive:
            self._climb.refused(now, wait, seconds, self.in_flight)
            self._set_limit()
        if self._waiters:
            self._admit(now)

    def failed(self, seconds: float = 0.0) -> None:
        """No answer came: an error, a time-out, a broken connection, a cancelled caller."""
        now = self._leave(0)
        if self._adaptive:
            self._climb.failed(now, seconds, self.in_flight)
            self._set_limit()
        if self._waiters:
            self._admit(now)

    def allot(self, share: float, processes: int = 1) -> None:
        """What part of the line's limits is this process's, of so many that use it; 0 holds everything back."""
        now = self._clock()
        self._pace.share(share, now, joins=processes > 1 and self._share == 0 < share)
        self._share, self._processes = share, processes
        if share:
            self._climb.cap(max(1, int(self.ceiling * share)))
        self._set_limit()
        self._admit(now)

    @property
    def activity(self) -> float:
        """Another figure whenever a request has come or gone."""
        return self._climb.stamps

    def learned(self) -> dict[str, Any]:
        """What the next process that uses this line should know; nothing where there was nothing to find."""
        if not self._adaptive or self._given or self._share < 1:
            return {}
        return {"level": self._climb.home, "refused_at": self._climb.refused_at}

    def recall(self, learned: dict[str, Any]) -> None:
        """Begin where an earlier process ended. A limit that the recipe sets is not touched."""
        level = learned.get("level")
        if self._adaptive and not self._given and isinstance(level, int) and level > 0:
            self._climb.restart(level, learned.get("refused_at"))
            self._set_limit()

    def _leave(self, tokens: int) -> float:
        now = self._clock()
        if self._paced:
            self._pace.give_back(tokens, self.in_flight)
        self.in_flight -= 1
        self._climb.stamps += now
        return now

    def _told(self, now: float, quota: Quota, tokens: int) -> None:
        self._pace.told(now, quota, tokens, self.in_flight)
        self._paced = self._pace.limits

    def _log(self) -> None:
        log("limit", line=self.name, limit=self._climb.limit, why=self._climb.why)

    def _set_limit(self) -> None:
        self.limit = self._climb.limit if self._share else 0

    def _admit(self, now: float) -> None:
        """Let in those whose turn it is."""
        waiters, pace = self._waiters, self._pace
        while waiters and self.in_flight < self.limit:
            turn, tokens = waiters[0]
            if turn.done():  # its caller gave up
                waiters.popleft()
                continue
            if self._paced:
                if now < pace.due:
                    self._call_at(now, pace.due)
                    return
                pace.take(now, tokens)
            waiters.popleft()
            self.in_flight += 1
            self._climb.stamps -= now
            turn.set_result(None)

    def _call_at(self, now: float, due: float) -> None:
        """One timer; one that stands too late is put earlier, one that fires too early sets the next."""
        loop = asyncio.get_running_loop()
        moment = loop.time() + due - now
        if self._timer is not None:
            if self._timer.when() <= moment:
                return
            self._timer.cancel()
        self._timer = loop.call_at(moment, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        self._admit(self._clock())
