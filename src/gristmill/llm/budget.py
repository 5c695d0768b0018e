"""Limits of dollars, calls, tokens and wall time, held before a request is sent.

A request reserves the most it can cost and settles what it did cost. One that does not fit beside what is in flight
waits its turn: the others will probably cost less than they reserved. One that cannot fit at all ends the run,
resumably. So no limit is passed, whatever is in flight.

Nor by killing a run: before requests are sent, the most that those in flight can cost stands in the store (`hold`). It
is a quarter more than is needed, so that a run writes it a few times and not once a call, and cleared by a clean end.
What a killed attempt left there is charged, as far as the limits left room for it: it may have been spent. What was
spent and could not be written (the disk is full) stays there too, and so is charged by the next attempt.

Seconds are looked at before a request is sent, and wherever a stage asks: what is under way may end after them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydantic import BaseModel, ConfigDict, Field

from gristmill.core.errors import BudgetError, StoreError
from gristmill.core.store import Charge, Hold, Store
from gristmill.llm.prices import NANO

_ENDLESS = 1 << 62
SPARE = 4  # the hold is a quarter more than is needed: a line that grows to a thousand slots states it thirty times

KILLED = "killed attempts"
"""The ledger's name for what attempts had in flight when they were killed."""


class Limits(BaseModel):
    """What a run may use in all its attempts together. Reaching a limit pauses the run; a higher one lets it go on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    usd: float | None = Field(None, gt=0, description="US dollars, by the price table or the models' own `price`")
    calls: int | None = Field(None, gt=0, description="Calls to models")
    tokens: int | None = Field(None, gt=0, description="Tokens sent and received")
    seconds: float | None = Field(None, gt=0, description="Wall time")


@dataclass(slots=True)
class _Sum:
    """Calls, tokens and nano-dollars."""

    calls: int = 0
    tokens: int = 0
    nano: int = 0

    def add(self, tokens: int, nano: int, calls: int = 1) -> None:
        self.calls += calls
        self.tokens += tokens
        self.nano += nano

    def takes(self, held: _Sum, bid: Bid) -> bool:
        """Whether one call more fits below this limit, beside what is held."""
        return held.calls < self.calls and held.tokens + bid.tokens <= self.tokens and held.nano + bid.nano <= self.nano


def _endless() -> _Sum:
    return _Sum(_ENDLESS, _ENDLESS, _ENDLESS)


@dataclass(slots=True, eq=False)
class Bid:
    """The most that one call can cost. `kept`: a kill does not lose it, for it is noted elsewhere (in a batch)."""

    tokens: int
    nano: int = 0
    kept: bool = False


class Budget:
    """Starts from what the store says the run has used, and `elapsed` seconds of earlier attempts. Runs `beside` it
    have the same limits together with it: what they have used counts too."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        store: Store | None = None,
        run: str = "",
        elapsed: float = 0.0,
        beside: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits = limits or Limits()
        self._store = store
        self._run = run
        self._clock = clock
        self._started = clock() - elapsed
        self._bounded = bool(limits.usd or limits.calls or limits.tokens)
        self._used = _Sum()
        self._room = _Sum(limits.calls or _ENDLESS, limits.tokens or _ENDLESS, _nano(limits.usd))  # limits less used
        self._held = _Sum()  # by calls in flight
        self._risk = _Sum()  # the part of it that a kill would lose
        self._lost = _Sum()  # used, and not in the store's ledger: the hold keeps it
        self._stated = _endless()  # the hold that stands in the store, less what was lost
        self._left = Hold()  # by a killed attempt, and not charged yet
        self._queue: deque[tuple[Bid, asyncio.Future[None]]] = deque()
        self._stating: asyncio.Task[None] | None = None
        if store is not None:
            self._begin(store, beside)

    def _begin(self, store: Store, beside: Sequence[str]) -> None:
        for paid in map(store.spent, beside):
            self._use(paid.tokens_in + paid.tokens_out, paid.nano_usd, paid.calls)
        spent, left, room = store.spent(self._run), store.held(self._run), self._room
        self._use(spent.tokens_in + spent.tokens_out, spent.nano_usd, spent.calls)
        self._left = Hold(
            max(0, min(left.calls, room.calls)),
            max(0, min(left.tokens, room.tokens)),
            max(0, min(left.nano_usd, room.nano)),
        )
        self._use(self._left.tokens, self._left.nano_usd, self._left.calls)
        if self._bounded or left != Hold():
            self._stated = _Sum()

    @property
    def calls(self) -> int:
        return self._used.calls

    @property
    def tokens(self) -> int:
        return self._used.tokens

    @property
    def usd(self) -> float:
        return self._used.nano / NANO

    @property
    def seconds(self) -> float:
        return self._clock() - self._started

    def out_of_time(self) -> BudgetError | None:
        """Why nothing more may begin, once the wall time is used up: for work that asks no model, too."""
        limit = self.limits.seconds
        if limit is None or self.seconds < limit:
            return None
        return _reached("seconds", f"{limit:g} seconds", f"{self.seconds:.0f}")

    def try_reserve(self, bid: Bid) -> bool:
        """Room for one call, if there is some at once."""
        if self._queue or not self._room.takes(self._held, bid):
            return False
        if not (bid.kept or self._stated.takes(self._risk, bid)):
            return False
        if self.limits.seconds is not None and self.out_of_time():
            return False
        self._take(bid)
        return True

    async def reserve(self, bid: Bid) -> None:
        """`try_reserve`, waiting in turn while requests in flight may free room. BudgetError where none can come."""
        if self.try_reserve(bid):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((bid, turn))
        self._advance()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(bid)
            raise

    def settle(self, bid: Bid, tokens: int, nano: int) -> None:
        """The call cost this much."""
        self._use(tokens, nano)
        self.release(bid)

    def lost(self, bid: Bid, tokens: int, nano: int) -> None:
        """The call cost this much, and the store could not write it: it stays held there."""
        self._lost.add(tokens, nano)
        if self._bounded:
            self._stated.add(-tokens, -nano, -1)
        self.settle(bid, tokens, nano)

    def release(self, bid: Bid) -> None:
        """The call cost nothing: it was refused, or never sent."""
        self._held.add(-bid.tokens, -bid.nano, -1)
        if not bid.kept:
            self._risk.add(-bid.tokens, -bid.nano, -1)
        if self._queue:
            self._advance()

    async def close(self) -> None:
        """Leave no hold but what was lost, if nothing is in flight any more. The budget may be used again afterwards;
        where the store cannot be written, the wider hold stands."""
        if self._stating is not None:
            await asyncio.gather(self._stating, return_exceptions=True)
        await self._charge_left()
        if self._store is None or self._risk.calls:
            return
        if self._lost.calls or self._stated.calls not in (0, _ENDLESS):
            self._stated = _Sum()
            await self._hold(self._stated)

    def _take(self, bid: Bid) -> None:
        self._held.add(bid.tokens, bid.nano)
        if not bid.kept:
            self._risk.add(bid.tokens, bid.nano)

    def _use(self, tokens: int, nano: int, calls: int = 1) -> None:
        self._used.add(tokens, nano, calls)
        if self._bounded:
            self._room.add(-tokens, -nano, -calls)

    def _advance(self) -> None:
        """Let those in who fit now, in turn, and tell those who never will."""
        while self._queue:
            bid, turn = self._queue[0]
            if turn.done():  # cancelled while it waited
                self._queue.popleft()
            elif why := self._never(bid):
                self._queue.popleft()
                turn.set_exception(why)
            elif not self._room.takes(self._held, bid):
                return
            elif not (bid.kept or self._stated.takes(self._risk, bid)):
                self._stating = self._stating or asyncio.create_task(self._state())
                return
            else:
                self._queue.popleft()
                self._take(bid)
                turn.set_result(None)

    def _never(self, bid: Bid) -> BudgetError | None:
        """Why a call would not even fit if nothing was in flight."""
        limits, used, room = self.limits, self._used, self._room
        if late := self.out_of_time():
            return late
        if room.calls < 1:
            return _reached("calls", f"{limits.calls} calls", str(used.calls))
        if room.tokens < bid.tokens:
            return _reached("tokens", f"{limits.tokens} tokens", f"{used.tokens}, the next call may take {bid.tokens}")
        if room.nano < bid.nano:
            said = f"${used.nano / NANO:.4f}, the next call may cost ${bid.nano / NANO:.4f}"
            return _reached("usd", f"${limits.usd:g}", said)
        return None

    async def _state(self) -> None:
        """Write down what those in flight and those who fit beside them can cost, and some more."""
        try:
            await self._charge_left()
            self._stated = await self._hold_more() if self._bounded else _endless()
        except StoreError as error:
            waiting, self._queue = self._queue, deque()
            for _, turn in waiting:
                if not turn.done():
                    turn.set_exception(error)
        finally:
            self._stating = None
        self._advance()

    async def _hold_more(self) -> _Sum:
        need, room = replace(self._risk), self._room
        for bid, _ in self._queue:
            if not bid.kept and room.takes(need, bid):
                need.add(bid.tokens, bid.nano)
        stated = _Sum(
            min(_with_spare(need.calls), room.calls),
            min(_with_spare(need.tokens), room.tokens),
            min(_with_spare(need.nano), room.nano),
        )
        await self._hold(stated)
        return stated

    async def _hold(self, stated: _Sum) -> None:
        lost = self._lost
        if self._store is not None:
            calls, tokens, nano = stated.calls + lost.calls, stated.tokens + lost.tokens, stated.nano + lost.nano
            await self._store.hold(self._run, calls, tokens, nano)

    async def _charge_left(self) -> None:
        """The charge first: a kill between the two counts it twice, never not at all."""
        left, self._left = self._left, Hold()
        if left != Hold() and self._store is not None:
            charge = Charge(self._run, KILLED, "", left.calls, 0, left.tokens, nano_usd=left.nano_usd, answered=False)
            try:
                await self._store.charge(charge)
            except StoreError:
                self._left = left
                raise
            await self._hold(_Sum())


def _with_spare(amount: int) -> int:
    return amount + amount // SPARE + 1 if amount else 0


def _nano(usd: float | None) -> int:
    return _ENDLESS if usd is None else int(usd * NANO)


def _reached(name: str, limit: str, used: str) -> BudgetError:
    return BudgetError(
        f"the budget of {limit} is reached (used: {used})",
        f"The run is paused and nothing is lost: raise budget.{name} and run again.",
    )
