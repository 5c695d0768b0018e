"""Servers and a tireless client in virtual time: what the limiter sees, thousands of seconds in one."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from gristmill.llm.limits.limiter import Limiter

Done = Callable[[float | None], None]
"""Called with None when it is answered, with the Retry-After when it is refused."""


class Server(Protocol):
    def ask(self, line: Line, tokens: int, done: Done) -> None: ...


def tokens_between(low: int, high: int) -> Callable[[random.Random], int]:
    return lambda rng: rng.randint(low, high)


@dataclass
class Line:
    """A limiter, a server behind it, and always more to send."""

    server: Server
    start: int = 8
    ceiling: int = 256
    tokens: Callable[[random.Random], int] = field(default=lambda rng: 100)
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 1
    callers: int = 1 << 30

    def __post_init__(self) -> None:
        self.now = 0.0
        self.rng = random.Random(self.seed)
        self.limiter = Limiter(start=self.start, ceiling=self.ceiling, clock=lambda: self.now, **self.options)
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.answered: list[tuple[float, int]] = []
        self.refused: list[float] = []
        self.sent: list[float] = []
        self.limits: list[tuple[float, int]] = []

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (self.now + seconds, self.count, what))

    def looks(self, every: float, seconds: float) -> Line:
        """A sender held back by a rate looks again now and then (a real one has a timer)."""
        for tick in range(int(seconds / every)):
            self.after(tick * every, lambda: None)
        return self

    def run(self, seconds: float) -> Line:
        """So many seconds more."""
        end = self.now + seconds
        self._fill()
        while self.events and self.events[0][0] <= end:
            self.now, _, what = heapq.heappop(self.events)
            what()
            self._fill()
            self.limits.append((self.now, self.limiter.limit))
        self.now = end
        return self

    def _fill(self) -> None:
        while self.limiter.in_flight < self.callers and self.limiter.try_enter(1000):
            self._send()

    def _send(self) -> None:
        began, tokens = self.now, self.tokens(self.rng)
        self.sent.append(began)

        def done(wait: float | None) -> None:
            if wait is None:
                self.answered.append((self.now, tokens))
                self.limiter.left(self.now - began, tokens, None, tokens)
            else:
                self.refused.append(self.now)
                self.limiter.refused(wait, None, self.now - began)

        self.server.ask(self, tokens, done)

    def rate(self, since: float) -> float:
        """Tokens a second since a moment."""
        return sum(tokens for at, tokens in self.answered if at >= since) / (self.now - since)

    def mean_limit(self, since: float) -> float:
        """Over time."""
        total, (at, limit) = 0.0, (since, self.limiter.limit)
        for moment, value in self.limits:
            if moment >= since:
                total += (moment - at) * limit
                at = moment
            limit = value
        return (total + (self.now - at) * limit) / (self.now - since)


@dataclass
class Latency:
    """Answers everything after a time, however much is in flight."""

    seconds: float
    jitter: float = 0.0

    def ask(self, line: Line, tokens: int, done: Done) -> None:
        line.after(self.seconds + self.jitter * line.rng.random(), lambda: done(None))


@dataclass
class Slots:
    """llama-server: so many answers at once, the rest queues and is never refused. `noise`: spread of its speed."""

    slots: int
    per_token: float
    overhead: float = 0.002
    noise: float = 0.0

    def __post_init__(self) -> None:
        self.free = self.slots
        self.queue: deque[tuple[int, Done]] = deque()
        self.slowness = 1.0  # of the whole machine

    def ask(self, line: Line, tokens: int, done: Done) -> None:
        line.after(self.overhead, lambda: self._arrive(line, tokens, done))

    def _arrive(self, line: Line, tokens: int, done: Done) -> None:
        self.queue.append((tokens, done))
        self._next(line)

    def _next(self, line: Line) -> None:
        while self.free and self.queue:
            self.free -= 1
            tokens, done = self.queue.popleft()
            seconds = tokens * self.per_token * self.slowness * (1 + self.noise * line.rng.uniform(-1, 1))
            line.after(seconds, lambda done=done: self._end(line, done))  # type: ignore[misc]

    def _end(self, line: Line, done: Done) -> None:
        self.free += 1
        self._next(line)
        done(None)


@dataclass
class Batch:
    """vLLM: all answers advance together, each token taking `base + load x answers under way` seconds."""

    base: float
    load: float

    def __post_init__(self) -> None:
        self.progress, self.at, self.version = 0.0, 0.0, 0
        self.active: list[tuple[float, int, Done]] = []

    def ask(self, line: Line, tokens: int, done: Done) -> None:
        self._advance(line)
        line.count += 1
        heapq.heappush(self.active, (self.progress + tokens, line.count, done))
        self._plan(line)

    def _step(self) -> float:
        return self.base + self.load * len(self.active)

    def _advance(self, line: Line) -> None:
        self.progress += (line.now - self.at) / self._step()
        self.at = line.now

    def _plan(self, line: Line) -> None:
        self.version += 1
        if self.active:
            version, seconds = self.version, max(0.0, self.active[0][0] - self.progress) * self._step()
            line.after(seconds, lambda: self._end(line) if version == self.version else None)

    def _end(self, line: Line) -> None:
        self._advance(line)
        done = heapq.heappop(self.active)[2]
        self._plan(line)
        done(None)


@dataclass
class Refusing:
    """Refuses at once: a random share, above so many in flight, or above so many a second; else the inner server."""

    inner: Server
    share: float = 0.0
    most: int = 1 << 30
    per_second: float = 0.0
    wait: float = 1.0
    seconds: float = 0.001

    def __post_init__(self) -> None:
        self.in_flight = 0
        self.bucket, self.at = self.per_second / 10, 0.0

    def ask(self, line: Line, tokens: int, done: Done) -> None:
        if self._refuses(line):
            line.after(self.seconds, lambda: done(self.wait))
            return
        self.in_flight += 1

        def finished(wait: float | None) -> None:
            self.in_flight -= 1
            done(wait)

        self.inner.ask(line, tokens, finished)

    def _refuses(self, line: Line) -> bool:
        if self.per_second:
            self.bucket = min(self.per_second / 10, self.bucket + (line.now - self.at) * self.per_second)
            self.at = line.now
            if self.bucket < 1:
                return True
            self.bucket -= 1
        return self.in_flight >= self.most or line.rng.random() < self.share
