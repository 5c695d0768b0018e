"""Asks models for a whole process: looks in the store first, sends identical calls once, holds slots and budget,
retries, falls over to the next provider, and keeps every answer durably before anyone parses it.

A call's key is the hash of everything that decides its answer: the model's identity, the messages, the sampling, the
schema, the sample and attempt numbers, and the recipe's seed where sampling is random. Never a key or a port. What is
hashed is kept beside the answer, encoded once.

A call runs in the task of whoever asks. Per answered call this costs less than half of what sending it does; what can
wait (a full line, a tight budget, a failure) is off that path.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gristmill.core.ask import Answer, Model, Usage
from gristmill.core.errors import ConfigError, ProviderError, Unreachable
from gristmill.core.logs import detail, detailed, log
from gristmill.core.records import digest_of
from gristmill.core.store import Charge, Store
from gristmill.llm.answers import answer_of, content_of, read_answer, reply_data
from gristmill.llm.budget import NANO, Bid, Budget
from gristmill.llm.limiter import CEILING, START, Limiter
from gristmill.llm.line import Line, LineStatus, Tries, status_of
from gristmill.llm.model import BoundModel
from gristmill.llm.prices import demand_price, price_of
from gristmill.llm.provider import Provider, Refused, Reply, Request, Unanswered, Unusable, Withheld
from gristmill.llm.shares import Shares
from gristmill.llm.spec import AnthropicSpec, LocalSpec, ModelSpec, OpenAISpec, RemoteSpec
from gristmill.llm.waits import Waits, stopped

if TYPE_CHECKING:
    from gristmill.models.weights import Weights

__all__ = ["Backup", "Client", "LineStatus"]

Counts = Counter[str]
"""calls, cached, shared, retries, refused, timeouts, invalid, truncated, failed, tokens_in, tokens_out, tokens_cached,
tokens_reasoning, usd."""

Backup = tuple[str, ModelSpec, "Weights | None"]
"""Another role of the recipe that stands in for a model that is down."""


@dataclass(frozen=True, slots=True, eq=False)
class _Caller:
    """On whose behalf calls are made, and whom to ask, in order."""

    role: str
    stage: str
    lines: tuple[Line, ...]
    counts: Counts


@dataclass(slots=True, eq=False)
class _Call:
    """One question to one line, on its way to an answer."""

    line: Line
    caller: _Caller
    request: Request
    key: str
    content: bytes
    bid: Bid
    tokens_in: int  # at most


class Client:
    """One per process and run. `counters[stage]` may be read at any time; close it when a stage or the run ends."""

    def __init__(
        self,
        store: Store,
        *,
        workspace: Path,
        base: Path | None = None,
        budget: Budget | None = None,
        run: str = "",
        seed: int = 0,
        emit: Callable[..., None] | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self.store = store
        self.workspace = workspace
        self.base = base or Path()
        self.budget = budget or Budget(store=store, run=run)
        self.run = run
        self.seed = seed
        self.emit = emit or _silent
        self.stopping = stopping
        self.counters: defaultdict[str, Counts] = defaultdict(Counter)
        self._waits = Waits(stopping)
        self._shares = Shares(store)
        self._joined: dict[str, asyncio.Future[None]] = {}
        self._limiters: dict[str, Limiter] = {}
        self._lines: dict[str, Line] = {}
        self._models: dict[tuple[Any, ...], tuple[ModelSpec, BoundModel]] = {}
        self._flights: dict[str, asyncio.Future[Answer]] = {}
        self._owed: set[asyncio.Task[None]] = set()  # charges of calls that were cancelled on their way

    def model(
        self,
        role: str,
        spec: ModelSpec,
        *,
        stage: str,
        weights: Weights | None = None,
        quantization: str | None = None,
        fallback: Sequence[Backup] = (),
    ) -> Model:
        """A model bound to a role and to the stage that asks. `weights` are needed where the spec names a stage.
        `fallback`: the roles that the spec names as such, in its order."""
        known = (role, stage, quantization, id(spec), weights.sha256 if weights else None)
        if (found := self._models.get(known)) is not None:
            return found[1]
        lines = [self._line(role, spec, weights, quantization)]
        lines += [self._line(name, other, its, None) for name, other, its in fallback]
        for line in lines:
            line.roles.add(role)
        caller = _Caller(role, stage, tuple(lines), self.counters[stage])
        first = lines[0].provider
        bound = BoundModel(role, first.identity, first.context, partial(self._answer, caller), caller.counts)
        self._models[known] = spec, bound  # the spec stays alive, so that its id stays its own
        return bound

    def window(self, specs: Sequence[ModelSpec]) -> int:
        """How many records a stage that asks these models should have under way now: twice what is in flight at most,
        so that no slot waits while answers are committed and parsed; in batches, two of them."""
        return max((self._window(spec) for spec in specs), default=1)

    def lines(self) -> list[LineStatus]:
        """What goes on at each provider now."""
        by_limiter: dict[int, list[Line]] = defaultdict(list)
        for line in self._lines.values():
            by_limiter[id(line.limiter)].append(line)
        return [status_of(lines) for lines in by_limiter.values()]

    async def close(self) -> None:
        """Let go of engines and connections; what was learned of the lines stays, and they may be asked again."""
        if self._owed:
            await asyncio.gather(*self._owed)
        self._waits.close()
        for line in self._lines.values():
            if line.batcher is not None:
                await line.batcher.close()
            await line.provider.close()
        await self._shares.close()
        self._joined.clear()
        await self.budget.close()

    # Lines.

    def _line(self, role: str, spec: ModelSpec, weights: Weights | None, quantization: str | None) -> Line:
        name = digest_of([spec.model_dump(mode="json"), weights.sha256 if weights else None, quantization])
        line = self._lines.get(name)
        if line is None:
            price = demand_price(role, spec) if self.budget.limits.usd is not None else price_of(spec)
            provider = self._provider(role, spec, weights, quantization)
            line = self._lines[name] = Line(provider, self._limiter(provider, spec), price)
        return line

    def _provider(self, role: str, spec: ModelSpec, weights: Weights | None, quantization: str | None) -> Provider:
        if isinstance(spec, OpenAISpec):
            from gristmill.llm.openai import OpenAIProvider

            return OpenAIProvider(spec, notes=self.store)
        if isinstance(spec, AnthropicSpec):
            from gristmill.llm.anthropic import AnthropicProvider

            return AnthropicProvider(spec, notes=self.store)
        from gristmill.llm.local import LocalProvider

        if weights is None:
            if not isinstance(spec, LocalSpec):
                raise ConfigError(
                    f"the model {role} is trained by a stage that has not run", "Let that stage run first."
                )
            from gristmill.models.weights import locate

            weights = locate(spec.model, base=self.base, hasher=self.store.file_hash)
        return LocalProvider(spec, weights, quantization=quantization, workspace=self.workspace, emit=self.emit)

    def _limiter(self, provider: Provider, spec: ModelSpec) -> Limiter:
        """The line's own: whoever asks the same server for the same model with the same key shares it."""
        limiter = self._limiters.get(provider.name)
        if limiter is None:
            limiter = self._limiters[provider.name] = _new_limiter(spec)
        return limiter

    def _window(self, spec: ModelSpec) -> int:
        if isinstance(spec, RemoteSpec) and spec.batch is not None:
            return 2 * spec.batch.size
        found = next((m for s, m in self._models.values() if s is spec), None)
        line = next((line for line in self._lines.values() if found and line.identity == found.identity), None)
        return 2 * (line.limiter.limit if line else spec.concurrency or START)

    async def _join(self, line: Line) -> None:
        """Take part in the limits that other processes share, once."""
        name = line.provider.name
        joining = self._joined.get(name)
        if joining is None:
            joining = self._joined[name] = asyncio.ensure_future(self._shares.join(name, line.limiter))
        await asyncio.shield(joining)

    # A question, whoever answers it.

    async def _answer(self, caller: _Caller, request: Request, *, sample: int, attempt: int) -> Answer:
        """From the first provider that serves; a model that serves nobody hands its requests to the next."""
        several = len(caller.lines) > 1
        lines = [line for line in caller.lines if line.serves()] if several else caller.lines
        failure: ProviderError | None = None
        for line in lines or caller.lines:
            answered = line.answered
            try:
                return await self._from(line, caller, request, sample, attempt)
            except Unusable as error:
                failure = error
            except Unanswered as error:
                if not several or line.answered > answered:  # others are served: it is this request
                    raise
                failure = error
            if several:
                self._fall_over(caller, line, failure)
        raise self._unserved(caller, failure)

    def _fall_over(self, caller: _Caller, line: Line, error: ProviderError) -> None:
        if line.mark_down(error):
            self.emit("model.down", role=caller.role, model=line.identity, error=error.message)

    def _unserved(self, caller: _Caller, error: ProviderError | None) -> ProviderError:
        """A line that has never answered stops the run: what is wrong with it is wrong with every record."""
        if error is None:
            return ProviderError(f"{caller.role} has no model")
        if any(line.answered for line in caller.lines) or not isinstance(error, Unusable):
            return error
        also = ", nor those that stand in for it" if len(caller.lines) > 1 else ""
        return Unreachable(
            f"the model `{caller.role}` cannot be asked{also}: {error.message}",
            error.hint or "Mend its entry in `models` or the server, and run the same command again.",
        )

    async def _from(self, line: Line, caller: _Caller, request: Request, sample: int, attempt: int) -> Answer:
        """The stored answer, the one in flight, or a new one: durable when this returns."""
        content = content_of(line.identity, request, sample=sample, attempt=attempt, seed=self.seed)
        key = hashlib.sha256(content).hexdigest()
        while (flight := self._flights.get(key)) is not None:
            try:
                answer = await asyncio.shield(flight)
            except asyncio.CancelledError:
                if flight.cancelled() and not _cancelling():
                    continue  # the one who asked gave up: ask ourselves
                raise
            caller.counts["shared"] += 1
            return answer
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            stored = await self.store.response(key)
            if stored is not None:
                caller.counts["cached"] += 1
                answer = read_answer(key, line.identity, stored["reply"])
            else:
                answer = await self._ask(line, caller, request, key, content)
            flight.set_result(answer)
            return answer
        except Exception as error:
            flight.set_exception(error)
            flight.exception()  # nobody else may be waiting for it
            raise
        finally:
            if not flight.done():
                flight.cancel()
            del self._flights[key]

    # A question to one line.

    async def _ask(self, line: Line, caller: _Caller, request: Request, key: str, content: bytes) -> Answer:
        if request.temperature > 0:
            request = replace(request, seed=int(key[:8], 16) & 0x7FFFFFFF)
        if line.provider.shared and line.provider.name not in self._joined:
            await self._join(line)
        tokens = line.provider.input_bound(request)
        most = request.max_tokens
        bid = Bid(tokens + most, line.price.most(tokens, most), line.batcher is not None)
        call = _Call(line, caller, request, key, content, bid, tokens)
        tries: Tries | None = None
        while True:
            try:
                return await self._once(call)
            except Unanswered as error:
                tries = tries or Tries(line.provider.attempts)
                wait = tries.wait(error)
                self._note(call, error, wait)
                if wait is None:
                    raise
            except ProviderError as error:
                self._note(call, error, None)
                raise
            await self._waits.until(asyncio.sleep(wait))

    async def _once(self, call: _Call) -> Answer:
        """One attempt: enter, send, leave at the last byte, keep."""
        line, bid = call.line, call.bid
        await self._enter(line, bid)
        began = time.perf_counter()
        try:
            reply = await line.send(call.key, call.request)
        except ProviderError as error:
            await self._broke(call, error, time.perf_counter() - began)
            raise
        except BaseException:  # cancelled on its way: it may still be answered, and billed
            line.limiter.failed(time.perf_counter() - began)
            self._owed.add(owed := asyncio.ensure_future(self._charge(call, None)))
            owed.add_done_callback(self._owed.discard)
            raise
        if reply is None:
            return await self._kept_elsewhere(call)
        return await self._keep(call, reply, time.perf_counter() - began)

    async def _enter(self, line: Line, bid: Bid) -> None:
        """Room in the budget, then a slot. Nothing is sent once the run is to stop; what is under way is waited for."""
        if self.stopping():
            raise stopped()
        if not self.budget.try_reserve(bid):
            await self._waits.until(self.budget.reserve(bid))
        if line.batcher is not None or line.limiter.try_enter(bid.tokens):
            return
        try:
            await self._waits.until(line.limiter.enter(bid.tokens))
        except BaseException:
            self.budget.release(bid)
            raise

    async def _keep(self, call: _Call, reply: Reply, seconds: float) -> Answer:
        """Give the slot back, unless too much is not durable yet; keep the answer; count it."""
        line, caller, usage = call.line, call.caller, reply.usage
        known = usage.known
        if known:
            cost = line.price.cost(usage)
        else:  # it costs what was reserved for it, in this attempt of the run and in the next
            usage, cost = Usage(call.tokens_in, call.request.max_tokens, known=False), call.bid.nano
        spent = usage.input + usage.output
        slot = line.batcher is None
        if slot and line.unkept < line.limiter.limit:
            slot = False
            line.limiter.left(seconds, spent if known else 0, reply.quota, usage.output)
        line.answered += 1
        line.unkept += 1
        try:
            await self.store.put_response(
                call.key,
                {"request": orjson.Fragment(call.content), "reply": reply_data(reply, usage)},
                Charge(
                    self.run,
                    caller.stage,
                    caller.role,
                    1,
                    usage.input,
                    usage.output,
                    usage.cached,
                    usage.reasoning,
                    cost,
                ),
            )
        finally:
            line.unkept -= 1
            if slot:
                line.limiter.left(seconds, spent if known else 0, reply.quota, usage.output)
            self.budget.settle(call.bid, spent, cost)
        caller.counts["calls"] += 1
        _count(caller.counts, usage, cost)
        if line.batcher is not None:
            line.batcher.kept(call.key)
        if line.down is not None:
            self._up(line)
        if detailed():
            detail("answered", role=caller.role, request=call.key, seconds=round(seconds, 4), usd=cost / NANO)
        return answer_of(call.key, line.identity, reply, usage)

    async def _kept_elsewhere(self, call: _Call) -> Answer:
        """The answer of a batch that another process had handed in."""
        self.budget.release(call.bid)
        stored = await self.store.response(call.key)
        if stored is None:
            raise Unanswered("an answer that another process had kept is not in the store any more")
        call.caller.counts["cached"] += 1
        return read_answer(call.key, call.line.identity, stored["reply"])

    async def _broke(self, call: _Call, error: ProviderError, seconds: float) -> None:
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
            self.budget.release(call.bid)

    async def _charge(self, call: _Call, usage: Usage | None) -> None:
        """A call that brought no answer costs what the provider says, else all it had reserved."""
        caller, bid = call.caller, call.bid
        if usage is None or not usage.known:
            usage, cost = Usage(call.tokens_in, call.request.max_tokens, known=False), bid.nano
        else:
            cost = call.line.price.cost(usage)
        charge = Charge(
            self.run,
            caller.stage,
            caller.role,
            1,
            usage.input,
            usage.output,
            usage.cached,
            usage.reasoning,
            cost,
            False,
        )
        try:
            await self.store.charge(charge)
        finally:
            self.budget.settle(bid, usage.input + usage.output, cost)
        _count(caller.counts, usage, cost)

    def _note(self, call: _Call, error: ProviderError, wait: float | None) -> None:
        """Count and log an attempt that failed; `wait` seconds until the next, None if there is none."""
        counts = call.caller.counts
        if isinstance(error, Refused):
            counts["refused"] += 1
        elif isinstance(error.__cause__, TimeoutError):
            counts["timeouts"] += 1
        if wait is not None:
            counts["retries"] += 1
        else:
            counts["failed"] += 1
        what = "failed" if wait is None else "refused" if isinstance(error, Refused) else "retried"
        log(what, role=call.caller.role, request=call.key, status=error.status, error=error.message, wait=wait)

    def _up(self, line: Line) -> None:
        line.down = None
        self.emit("model.up", model=line.identity)


def _new_limiter(spec: ModelSpec) -> Limiter:
    if not isinstance(spec, RemoteSpec):  # an engine has so many slots
        return Limiter(ceiling=spec.concurrency, start=spec.concurrency, adaptive=False)
    most = spec.concurrency
    return Limiter(ceiling=most or CEILING, start=most or START, adaptive=most is None, rpm=spec.rpm, tpm=spec.tpm)


def _count(counts: Counts, usage: Usage, cost: int) -> None:
    counts["tokens_in"] += usage.input
    counts["tokens_out"] += usage.output
    if usage.cached:
        counts["tokens_cached"] += usage.cached
    if usage.reasoning:
        counts["tokens_reasoning"] += usage.reasoning
    if cost:
        counts["usd"] += cost / NANO  # type: ignore[assignment]


def _silent(event: str, **data: Any) -> None:
    """No one listens."""


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
