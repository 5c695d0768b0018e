"""One question to one line: sent until it is answered, and durable before anyone reads the answer.

What a call costs is reserved before it is sent and charged with the answer, in the same commit. A request that brings
no answer and may have been paid for is charged by itself. Answers that cannot be used never come here: a provider
raises for them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import orjson

from gristmill.core.ask import Answer, Usage
from gristmill.core.errors import ConfigError, ProviderError, StoreError
from gristmill.core.logs import detail, detailed, log
from gristmill.core.store import Charge, Store
from gristmill.llm.answers import answer_of, read_answer, reply_data
from gristmill.llm.budget import Bid, Budget
from gristmill.llm.line import Line, Tries
from gristmill.llm.prices import NANO
from gristmill.llm.provider import Refused, Reply, Request, Unanswered, Withheld
from gristmill.llm.waits import Waits, stopped

Counts = Counter[str]
"""calls, cached, shared, retries (refused ones too), refused, timeouts, invalid, truncated, failed, tokens_in,
tokens_out, tokens_cached, tokens_reasoning, usd."""

Heard = Callable[[str, str, Usage, float | None, int], None]
"""Told of each answer, in the task of whoever asked: role, stage, usage, seconds (None: it was kept), nano-dollars."""


@dataclass(slots=True, eq=False)
class Call:
    """A question on its way to its answer, and on whose behalf."""

    line: Line
    role: str
    stage: str
    counts: Counts
    request: Request
    key: str
    content: bytes
    tokens_in: int  # at most
    bid: Bid


class Sender:
    """Sends on behalf of one run."""

    def __init__(
        self, store: Store, budget: Budget, *, run: str, stopping: Callable[[], bool], heard: Heard | None = None
    ) -> None:
        self.heard = heard
        self._store = store
        self._budget = budget
        self._run = run
        self._stopping = stopping
        self._waits = Waits(stopping)
        self._unwritable: StoreError | None = None  # why the store keeps no more answers
        self._owed: set[asyncio.Task[None]] = set()  # charges of calls that were cancelled on their way

    async def close(self) -> None:
        await asyncio.gather(*self._owed, return_exceptions=True)
        self._waits.close()

    async def answer(self, call: Call) -> Answer:
        """Attempts until one is answered and kept. What a request waits for concerns it alone."""
        tries: Tries | None = None
        while True:
            try:
                return await self._once(call)
            except Unanswered as error:
                tries = tries or Tries(call.line.provider.attempts)
                wait = tries.wait(error)
                _note(call, error, wait)
                if wait is None:
                    raise
            except ProviderError as error:
                _note(call, error, None)
                raise
            await self._waits.until(asyncio.sleep(wait))

    async def _once(self, call: Call) -> Answer:
        """One attempt: enter, send, leave at the last byte, keep."""
        line, bid = call.line, call.bid
        await self._enter(line, bid)
        began = time.perf_counter()
        try:
            reply = await line.send(call.key, call.request)
        except ProviderError as error:
            await self._broke(call, error, time.perf_counter() - began)
            raise
        except ConfigError:  # never sent: the key cannot be read
            if line.batcher is None:
                line.limiter.failed()
            self._budget.release(bid)
            raise
        except BaseException:  # cancelled on its way
            self._abandon(call, time.perf_counter() - began)
            raise
        if reply is None:
            return await self._kept_elsewhere(call)
        return await self._keep(call, reply, time.perf_counter() - began)

    async def _enter(self, line: Line, bid: Bid) -> None:
        """A slot, then room in the budget: what is held there is in flight and no more. Nothing is sent once the run
        is to stop, or once an answer could not be kept; what is under way is waited for."""
        if self._stopping():
            raise stopped()
        if line.batcher is None and not line.limiter.try_enter(bid.tokens):
            await self._waits.until(line.limiter.enter(bid.tokens))
        try:
            if self._unwritable is not None:
                raise self._unwritable
            if self._budget.try_reserve(bid):
                return
            await self._waits.until(self._budget.reserve(bid))
        except BaseException:
            if line.batcher is None:
                line.limiter.failed()
            raise

    async def _keep(self, call: Call, reply: Reply, seconds: float) -> Answer:
        """Give the slot back, unless too much is not durable yet; keep the answer; count it. Whatever happens on the
        way, slot and reservation are given back."""
        line, bid, budget = call.line, call.bid, self._budget
        slot = line.batcher is None
        early = slot and line.keeps_up
        spent, cost, told, output = bid.tokens, bid.nano, 0, None
        settle = budget.lost if slot else budget.settle  # a batch's answer is fetched again, and charged then
        line.answered += 1
        line.unkept += 1
        try:
            usage, cost = _bill(call, reply.usage)
            output = usage.output
            spent = usage.input + output
            told = spent if usage.known else 0
            if early:
                slot = False
                line.limiter.left(seconds, told, reply.quota, output)
            await self._store.put_response(
                call.key,
                {"request": orjson.Fragment(call.content), "reply": reply_data(reply, usage)},
                _charge_of(call, self._run, usage, cost, answered=True),
            )
            settle = budget.settle
        except asyncio.CancelledError:  # it was handed in, and is written all the same
            settle = budget.settle
            raise
        except StoreError as error:  # what cannot be kept shall not be asked for
            self._unwritable = error
            raise
        finally:
            line.unkept -= 1
            if slot:
                line.limiter.left(seconds, told, reply.quota, output)
            settle(bid, spent, cost)
        call.counts["calls"] += 1
        _count(call.counts, usage, cost)
        if line.batcher is not None:
            line.batcher.kept(call.key)
        if detailed():
            detail("answered", role=call.role, request=call.key, seconds=round(seconds, 4), usd=cost / NANO)
        if self.heard is not None:
            self.heard(call.role, call.stage, usage, seconds, cost)
        return answer_of(call.key, line.identity, reply, usage)

    async def _kept_elsewhere(self, call: Call) -> Answer:
        """The answer of a batch that another process had handed in."""
        self._budget.release(call.bid)
        stored = await self._store.response(call.key)
        if stored is None:
            raise Unanswered("an answer that another process had kept is not in the store any more")
        call.counts["cached"] += 1
        return read_answer(call.key, call.line.identity, stored["reply"])

    async def _broke(self, call: Call, error: ProviderError, seconds: float) -> None:
        """No answer: give the slot back, and charge what it may have cost all the same."""
        limiter = call.line.limiter
        usage = error.usage if isinstance(error, Unanswered | Withheld) else None
        if call.line.batcher is not None:
            pass  # holds no slot
        elif isinstance(error, Refused):
            limiter.refused(error.retry_after, error.quota, seconds)
        elif isinstance(error, Withheld):
            limiter.left(seconds, usage.input + usage.output if usage else 0)
        else:
            limiter.failed(seconds)
        if isinstance(error, Withheld) or getattr(error, "charged", False):
            await self._charge(call, usage)
        else:
            self._budget.release(call.bid)

    def _abandon(self, call: Call, seconds: float) -> None:
        """Nobody waits for the answer any more. It may still come, and be billed; in a batch it is fetched later."""
        if call.line.batcher is not None:
            self._budget.release(call.bid)
            return
        call.line.limiter.failed(seconds)
        self._owed.add(owed := asyncio.ensure_future(self._charge(call, None)))
        owed.add_done_callback(self._settled)

    def _settled(self, owed: asyncio.Future[None]) -> None:
        """What the store could not write stays held there, and is charged by the next attempt."""
        self._owed.discard(owed)
        if not owed.cancelled() and (error := owed.exception()) is not None:
            log("charge not written", error=str(error))

    async def _charge(self, call: Call, usage: Usage | None) -> None:
        """A call that brought no answer costs what the provider says, else all it had reserved."""
        usage, cost = _bill(call, usage)
        settle = self._budget.lost
        try:
            await self._store.charge(_charge_of(call, self._run, usage, cost, answered=False))
            settle = self._budget.settle
        except asyncio.CancelledError:  # it was handed in, and is written all the same
            settle = self._budget.settle
            raise
        finally:
            settle(call.bid, usage.input + usage.output, cost)
        _count(call.counts, usage, cost)


def _bill(call: Call, usage: Usage | None) -> tuple[Usage, int]:
    """What a call used, and what that costs. Where nobody knows, it is what was reserved for it, in this attempt of
    the run and in the next."""
    if usage is not None and usage.known:
        return usage, call.line.price.cost(usage)
    return Usage(call.tokens_in, call.request.max_tokens, known=False), call.bid.nano


def _charge_of(call: Call, run: str, usage: Usage, cost: int, *, answered: bool) -> Charge:
    used = usage.input, usage.output, usage.cached, usage.reasoning
    return Charge(run, call.stage, call.role, 1, *used, cost, answered)


def _note(call: Call, error: ProviderError, wait: float | None) -> None:
    """Count and log an attempt that failed; `wait` seconds until the next, None if there is none."""
    counts = call.counts
    if isinstance(error, Refused):
        counts["refused"] += 1
    elif isinstance(error.__cause__, TimeoutError):
        counts["timeouts"] += 1
    if wait is not None:
        counts["retries"] += 1
    else:
        counts["failed"] += 1
    what = "failed" if wait is None else "refused" if isinstance(error, Refused) else "retried"
    log(what, role=call.role, request=call.key, status=error.status, error=error.message, wait=wait)


def _count(counts: Counts, usage: Usage, cost: int) -> None:
    counts["tokens_in"] += usage.input
    counts["tokens_out"] += usage.output
    if usage.cached:
        counts["tokens_cached"] += usage.cached
    if usage.reasoning:
        counts["tokens_reasoning"] += usage.reasoning
    if cost:
        counts["usd"] += cost / NANO  # type: ignore[assignment]
