"""Limits of calls, tokens and wall time, held before a request is sent.

A request reserves the most it can cost and settles what it did cost. One that does not fit beside what is in flight
waits: the others will probably cost less than they reserved. One that cannot fit at all ends the run, resumably.

Within one attempt at a run, calls and tokens never pass their limits, whatever is in flight. A request that died
unanswered but may be billed is charged all it reserved, in the attempt in which it died. The next attempt starts from
the answers that are kept: what died is not carried over, and may be billed beyond the limit. Seconds are looked at
before a request is sent: one in flight may end after them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from gristmill.core.errors import BudgetError
from gristmill.core.store import Spent


class Limits(BaseModel):
    """What a run may use in all its attempts together. Reaching a limit pauses the run; a higher one lets it go on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: float | None = Field(None, gt=0, description="US dollars, by the price table or the models' own `price`")
    calls: int | None = Field(None, gt=0, description="Calls to models")
    tokens: int | None = Field(None, gt=0, description="Tokens sent and received")
    seconds: float | None = Field(None, gt=0, description="Wall time")


@dataclass(slots=True, eq=False)
class Reservation:
    tokens: int


class Budget:
    """Starts from what the run has already used: `spent` by the store, `elapsed` seconds by its events."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        spent: Spent | None = None,
        elapsed: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or Limits()
        before = spent or Spent()
        self.calls = before.calls
        self.tokens = before.tokens_in + before.tokens_out
        self._clock = clock
        self._started = clock() - elapsed
        self._held_calls = 0
        self._held_tokens = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def seconds(self) -> float:
        return self._clock() - self._started

    async def reserve(self, tokens: int) -> Reservation:
        """Room for one call of at most so many tokens. Waits while requests in flight may free it."""
        while not self._fits(tokens):
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(room)
            await room
        self._held_calls += 1
        self._held_tokens += tokens
        return Reservation(tokens)

    def settle(self, reservation: Reservation, tokens: int | None) -> None:
        """The call was answered and cost this much; None where nobody knows: then it cost all that was reserved."""
        self.calls += 1
        self.tokens += reservation.tokens if tokens is None else tokens
        self.release(reservation)

    def release(self, reservation: Reservation) -> None:
        """The call cost nothing: it was refused, or never sent."""
        self._held_calls -= 1
        self._held_tokens -= reservation.tokens
        waiting, self._waiting = self._waiting, []
        for room in waiting:
            if not room.done():
                room.set_result(None)

    def _fits(self, tokens: int) -> bool:
        """Whether it fits now; BudgetError if it would not fit even when nothing was in flight."""
        limits = self.limits
        if limits.seconds is not None and self.seconds >= limits.seconds:
            raise _reached("seconds", f"{limits.seconds:g}", f"{self.seconds:.0f}")
        if limits.calls is not None and self.calls + 1 > limits.calls:
            raise _reached("calls", str(limits.calls), str(self.calls))
        if limits.tokens is not None and self.tokens + tokens > limits.tokens:
            raise _reached("tokens", str(limits.tokens), f"{self.tokens}, and the next call may take {tokens}")
        calls_fit = limits.calls is None or self.calls + self._held_calls + 1 <= limits.calls
        return calls_fit and (limits.tokens is None or self.tokens + self._held_tokens + tokens <= limits.tokens)


def _reached(name: str, limit: str, used: str) -> BudgetError:
    return BudgetError(
        f"the budget of {limit} {name} is reached (used: {used})",
        f"The run is paused and nothing is lost: raise budget.{name} and run again.",
    )
