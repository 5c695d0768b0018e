"""One provider as the client uses it: its slots, its price, and how it is doing."""

from __future__ import annotations

import random
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gristmill.core.errors import ProviderError
from gristmill.llm.limits.limiter import Limiter
from gristmill.llm.prices import FREE, Price
from gristmill.llm.provider import Provider, Refused, Reply, Request, Unanswered

if TYPE_CHECKING:
    from gristmill.llm.batch.batcher import Batcher

FIRST_WAIT, LONGEST_WAIT = 0.25, 2.0  # seconds: eight attempts at what fails for ever end after five, on average
SOON = 0.1  # seconds: what broke on its way, or came back torn, says nothing against asking again
LONGEST_REFUSAL = 600.0  # seconds of waiting in all: who is refused for longer is closed for today
DOWN_SECONDS = 60.0  # before a line that served nobody is tried again
TURNED_AWAY = 10  # requests in a row, no answer between: a key that was withdrawn, a model that was taken down
RATE_SECONDS = 10.0  # over which the rate of answers is taken


@dataclass(frozen=True, slots=True)
class LineStatus:
    """A line at work, for people who watch."""

    roles: tuple[str, ...]
    model: str  # identity
    in_flight: int
    limit: int
    why: str  # the limit is what it is
    waiting: int
    answered: int
    per_second: float
    down: str | None = None  # why its requests go to the next provider
    batches: int | None = None  # that hold what is in flight, where it is asked in batches


class Line:
    """A provider, the limiter it may share with others of the same server, model and key, and what became of it.

    `unkept` answers have come and are not durable yet. They have given their slots back, as long as they are fewer than
    half of the slots: a commit does not keep the line waiting, a slow disk does, and a kill costs no more answers than
    may be in flight and half as many.
    """

    def __init__(
        self, provider: Provider, limiter: Limiter, price: Price | None, batcher: Batcher | None = None
    ) -> None:
        self.provider = provider
        self.identity = provider.identity
        self.limiter = limiter
        self.price = price or FREE  # nobody knows it: nobody has set a budget in dollars
        self.batcher = batcher
        self.roles: set[str] = set()
        self.joined = not provider.shared  # takes part in the limits that other processes share
        self.answered = 0
        self.unkept = 0
        self.turned_away = 0  # requests since its last answer, by what is wrong with the line and not with them
        self.down: ProviderError | None = None
        self._again = 0.0
        self._seen: deque[tuple[float, int]] = deque(maxlen=64)  # when, and how many were answered by then

    def serves_nobody(self, error: ProviderError) -> bool:
        """Whether what turned a request away would turn away all others too. Once is enough before the first answer;
        but a firewall forbids (403) what one request holds."""
        return self.turned_away >= TURNED_AWAY or not (self.answered or error.status == 403)

    @property
    def keeps_up(self) -> bool:
        """Whether an answer may give its slot back before it is durable."""
        return 2 * self.unkept < self.limiter.limit

    async def send(self, key: str, request: Request) -> Reply | None:
        """One attempt; None where another process has just kept the answer."""
        if self.batcher is not None:
            return await self.batcher.ask(key, request)
        return await self.provider.send(request)

    def lets_in(self) -> bool:
        """Whether to send it a request: it is not down, or it is time to see whether it still is. Then one is let
        through, and the others hear what becomes of it."""
        if self.down is None:
            return True
        now = time.monotonic()
        if now < self._again:
            return False
        self._again = now + DOWN_SECONDS
        return True

    def mark_down(self, error: ProviderError) -> bool:
        """It served nobody. True if that is news."""
        news, self.down = self.down is None, error
        self._again = time.monotonic() + DOWN_SECONDS
        return news

    def per_second(self) -> float:
        """Answers, over the last seconds and since this was asked before."""
        now = time.monotonic()
        while len(self._seen) > 1 and now - self._seen[1][0] > RATE_SECONDS:
            self._seen.popleft()
        self._seen.append((now, self.answered))
        since, before = self._seen[0]
        return (self.answered - before) / (now - since) if now > since else 0.0


def status_of(lines: list[Line]) -> LineStatus:
    """Of lines that share one limiter; one that asks in batches shares none."""
    limiter, batcher = lines[0].limiter, lines[0].batcher
    down = next((line.down for line in lines if line.down), None)
    return LineStatus(
        roles=tuple(sorted({role for line in lines for role in line.roles})),
        model=lines[0].identity,
        in_flight=sum(batcher.under_way.values()) if batcher else limiter.in_flight,
        limit=batcher.window if batcher else limiter.limit,
        why="two batches" if batcher else limiter.why,
        waiting=batcher.waiting if batcher else limiter.waiting,
        answered=sum(line.answered for line in lines),
        per_second=round(sum(line.per_second() for line in lines), 3),
        down=down.message if down else None,
        batches=len(batcher.under_way) if batcher else None,
    )


@dataclass(slots=True)
class Tries:
    """What one request has been through, and how long it waits before it is sent again."""

    attempts: int
    failures: int = 0
    refusals: int = 0
    waited: float = 0.0  # seconds, for refusals

    def wait(self, error: Unanswered) -> float | None:
        """Seconds until the next attempt; None when there is none. With jitter: who failed together, or was refused
        together, does not come back together."""
        if isinstance(error, Refused):
            return self._refused(error.retry_after)
        self.failures += 1
        if self.failures >= self.attempts:
            return None
        if error.retry_after is not None:
            return self._told(error.retry_after)
        if error.charged and error.status in (None, 200):
            return SOON
        return random.random() * min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (self.failures - 1))

    def _refused(self, told: float | None) -> float | None:
        self.refusals += 1
        if told is None:
            told = random.random() * min(30.0, FIRST_WAIT * 2.0**self.refusals)
        return self._told(told)

    def _told(self, seconds: float) -> float | None:
        wait = seconds * (1 + random.uniform(0, 0.1))
        self.waited += wait
        return wait if self.waited <= LONGEST_REFUSAL else None
