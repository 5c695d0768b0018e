"""Asks models for a whole process: looks in the store first, sends identical calls once, holds slots and budget,
retries, and keeps every answer durably before anyone parses it.

A call's key is the hash of everything that decides its answer: the model's identity, the messages, the sampling, the
schema, the sample and attempt numbers, and the recipe's seed where sampling is random. Never a key or a port.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.core.ask import Answer, Model, Usage
from gristmill.core.errors import Cancelled, ConfigError, ProviderError
from gristmill.core.records import digest_of
from gristmill.core.store import Charge, Store
from gristmill.llm.budget import Budget
from gristmill.llm.model import BoundModel
from gristmill.llm.openai import OpenAIProvider
from gristmill.llm.provider import Provider, Reply, Request, Unanswered
from gristmill.llm.spec import LocalSpec, ModelSpec, RemoteSpec

if TYPE_CHECKING:
    from gristmill.models.weights import Weights

FIRST_WAIT, LONGEST_WAIT = 0.25, 8.0
LONGEST_RETRY_AFTER = 120.0  # a provider that wants more is closed for today: the next run may ask again

Counts = Counter[str]
"""calls, cached, shared, retries, invalid, truncated, failed, tokens_in, tokens_out."""

Keep = Callable[[Reply], Awaitable[dict[str, Any]]]
"""Makes an answer durable; gives it as it is kept."""


@dataclass(frozen=True)
class _Caller:
    """On whose behalf a call is made."""

    role: str
    stage: str


@dataclass(frozen=True)
class LineStatus:
    """A provider at work, for people who watch."""

    roles: tuple[str, ...]
    model: str  # identity
    in_flight: int
    limit: int
    why: str  # the limit is what it is
    waiting: int
    answered: int
    per_second: float
    down: str | None = None  # why its requests go to the next provider


class _Line:
    """A provider and its slots."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.slots = asyncio.Semaphore(provider.concurrency)

    def status(self) -> LineStatus:
        limit = self.provider.concurrency
        free: int = self.slots._value
        return LineStatus((), self.provider.identity, limit - free, limit, "as configured", 0, 0, 0.0)


class Client:
    """One per process and run. `counters[stage]` may be read at any time; close it when the run ends."""

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
        self.budget = budget or Budget()
        self.run = run
        self.seed = seed
        self.emit = emit or _silent
        self.stopping = stopping
        self.counters: defaultdict[str, Counts] = defaultdict(Counter)
        self._lines: dict[str, _Line] = {}
        self._flights: dict[str, asyncio.Future[Answer]] = {}

    def model(
        self,
        role: str,
        spec: ModelSpec,
        *,
        stage: str,
        weights: Weights | None = None,
        quantization: str | None = None,
    ) -> Model:
        """A model bound to a role and to the stage that asks. `weights` are needed where the spec names a stage."""
        name = digest_of([spec.model_dump(mode="json"), weights.sha256 if weights else None, quantization])
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = _Line(self._provider(role, spec, weights, quantization))
        asker = partial(self._answer, line, _Caller(role, stage))
        provider = line.provider
        return BoundModel(role, provider.identity, provider.context, asker, self.counters[stage])

    def _provider(self, role: str, spec: ModelSpec, weights: Weights | None, quantization: str | None) -> Provider:
        if isinstance(spec, RemoteSpec):
            return OpenAIProvider(spec)
        from gristmill.llm.local import LocalProvider

        if weights is None:
            if not isinstance(spec, LocalSpec):
                raise ConfigError(
                    f"the model {role} is trained by a stage that has not run", "Let that stage run first."
                )
            from gristmill.models.weights import locate

            weights = locate(spec.model, base=self.base, hasher=self.store.file_hash)
        return LocalProvider(spec, weights, quantization=quantization, workspace=self.workspace, emit=self.emit)

    def window(self, specs: Sequence[ModelSpec]) -> int:
        """How many records a stage that asks these models should have under way: twice what is in flight at most, so
        that no slot waits while answers are committed and parsed."""
        return max((2 * (spec.concurrency or 16) for spec in specs), default=1)

    def lines(self) -> list[LineStatus]:
        """What goes on at each provider now."""
        return [line.status() for line in self._lines.values()]

    async def close(self) -> None:
        for line in self._lines.values():
            await line.provider.close()
        self._lines.clear()

    async def _answer(self, line: _Line, caller: _Caller, request: Request, *, sample: int, attempt: int) -> Answer:
        """The stored answer, the one in flight, or a new one: durable when this returns."""
        content = self._content(line.provider.identity, request, sample, attempt)
        key = digest_of(content)
        counts = self.counters[caller.stage]
        while (flight := self._flights.get(key)) is not None:
            try:
                answer = await asyncio.shield(flight)
            except asyncio.CancelledError:
                if flight.cancelled() and not _cancelling():
                    continue  # the one who asked gave up: ask ourselves
                raise
            counts["shared"] += 1
            return answer
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            stored = await self.store.response(key)
            if stored is not None:
                counts["cached"] += 1
                answer = _read(key, line.provider.identity, stored["reply"])
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

    async def _ask(self, line: _Line, caller: _Caller, request: Request, key: str, content: dict[str, Any]) -> Answer:
        if request.temperature > 0:
            request = replace(request, seed=int(key[:8], 16) & 0x7FFFFFFF)
        if self.stopping():  # what is under way is waited for; nothing new is sent
            raise Cancelled("stopped", "Run the same command again to go on.")
        counts = self.counters[caller.stage]
        bound = line.provider.input_bound(request)

        async def keep(reply: Reply) -> dict[str, Any]:
            usage = reply.usage
            if not usage.known:  # it costs what was reserved for it, in this attempt of the run and in the next
                usage = Usage(bound, request.max_tokens, known=False)
            counts["calls"] += 1
            counts["tokens_in"] += usage.input
            counts["tokens_out"] += usage.output
            data = {"request": content, "reply": _reply_data(reply, usage)}
            payer = (self.run, caller.stage, caller.role)
            charge = Charge(*payer, tokens_in=usage.input, tokens_out=usage.output)
            await self.store.put_response(key, data, charge)
            return data["reply"]

        try:
            return _read(key, line.provider.identity, await self._send(line, request, bound, counts, keep))
        except ProviderError:
            counts["failed"] += 1
            raise

    async def _send(self, line: _Line, request: Request, bound: int, counts: Counts, keep: Keep) -> dict[str, Any]:
        """Send until it is answered and kept. A wait concerns this request only, and holds no slot; an answer holds its
        slot until it is on disk, so that a kill costs at most as many answers as there are slots."""
        attempt = 0
        while True:
            attempt += 1
            try:
                async with line.slots:
                    return await keep(await self._once(line.provider, request, bound + request.max_tokens))
            except Unanswered as error:
                wait = _wait(attempt, error.retry_after)
                if attempt >= line.provider.attempts or (error.retry_after or 0) > LONGEST_RETRY_AFTER:
                    raise
            counts["retries"] += 1
            await asyncio.sleep(wait)

    async def _once(self, provider: Provider, request: Request, tokens: int) -> Reply:
        held = await self.budget.reserve(tokens)
        try:
            reply = await provider.send(request)
        except ProviderError as error:
            if error.status == 200 or (isinstance(error, Unanswered) and error.charged):  # an answer was made
                self.budget.settle(held, None)
            else:
                self.budget.release(held)
            raise
        except BaseException:  # cancelled on its way: it may still be answered, and billed
            self.budget.settle(held, None)
            raise
        self.budget.settle(held, reply.usage.input + reply.usage.output if reply.usage.known else None)
        return reply

    def _content(self, identity: str, request: Request, sample: int, attempt: int) -> dict[str, Any]:
        """Everything that decides an answer, as it is hashed and kept."""
        content: dict[str, Any] = {
            "model": identity,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "sample": sample,
            "attempt": attempt,
        }
        for name in ("messages", "prompt", "texts", "stop", "schema", "grammar", "fresh"):
            if value := getattr(request, name):
                content[name] = value
        if request.temperature > 0:
            content["seed"] = self.seed
        return content


def _silent(event: str, **data: Any) -> None:
    """No one listens."""


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _wait(attempt: int, retry_after: float | None) -> float:
    """Seconds before the next attempt. Jitter, so that those who were refused together do not come back together."""
    if retry_after is not None:
        return retry_after * (1 + random.uniform(0, 0.1))
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.5)


def _reply_data(reply: Reply, usage: Usage) -> dict[str, Any]:
    data: dict[str, Any] = {
        "text": reply.text,
        "finish": reply.finish,
        "usage": [usage.input, usage.output, usage.known],
    }
    for name in ("reasoning", "tokens", "logprobs", "vectors"):
        if value := getattr(reply, name):
            data[name] = value
    return data


def _read(key: str, model: str, data: dict[str, Any]) -> Answer:
    return Answer(
        text=data["text"],
        finish=data["finish"],
        usage=Usage(*data["usage"]),
        key=key,
        model=model,
        tokens=tuple(data.get("tokens", ())),
        logprobs=tuple(data.get("logprobs", ())),
        raw={name: data[name] for name in ("reasoning", "vectors") if name in data},
    )
