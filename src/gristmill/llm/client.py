"""Asks models for a whole run: looks in the store first, sends identical calls once, and turns to the next provider
where one serves nobody. How a question is sent, kept and paid for is `sending`; whom it is sent to, `lines`.

A call's key is the hash of everything that decides its answer: the model's identity, the messages, the sampling, the
schema, the sample and attempt numbers, and the recipe's seed where sampling is random. Never a key or a port. What is
hashed is kept beside the answer, encoded once.

A call runs in the task of whoever asks. What can wait (a full line, a tight budget, a failure) is off the path that a
call takes when all goes well.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.core.ask import Answer, Model
from gristmill.core.errors import ProviderError, Unreachable
from gristmill.core.logs import detail, log
from gristmill.core.store import Store
from gristmill.llm.answers import content_of, read_answer
from gristmill.llm.budget import Bid, Budget
from gristmill.llm.line import Line, LineStatus
from gristmill.llm.lines import Lines
from gristmill.llm.model import BoundModel
from gristmill.llm.provider import Request, Unanswered, Unusable
from gristmill.llm.sending import Call, Counts, Heard, Sender
from gristmill.llm.spec import ModelSpec
from gristmill.llm.waits import cancelling

if TYPE_CHECKING:
    from gristmill.models.weights import Weights

__all__ = ["Backup", "Client", "LineStatus", "NotKept"]

Backup = tuple[str, ModelSpec, "Weights | None"]
"""Another role of the recipe that stands in for a model that is down."""


_Asked = tuple[Line, str, bytes]
"""Whom to ask, under which key, and what is hashed for it."""


class NotKept(ProviderError):
    """An answer that is not in the store, where nobody may be asked."""


@dataclass(frozen=True, slots=True, eq=False)
class _Caller:
    """On whose behalf calls are made, and whom to ask, in order."""

    role: str
    stage: str
    lines: tuple[Line, ...]
    counts: Counts
    seed: int


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
        heard: Heard | None = None,
        asks: bool = True,
    ) -> None:
        self.store = store
        self.asks = asks  # False: what the store does not hold is an error, and nobody is asked
        self.workspace = workspace
        self.budget = budget or Budget(store=store, run=run)
        self.seed = seed
        self.emit = emit or _silent
        self.counters: defaultdict[str, Counts] = defaultdict(Counter)
        in_dollars = self.budget.limits.usd is not None
        self._lines = Lines(
            store,
            workspace=workspace,
            base=base or Path(),
            in_dollars=in_dollars,
            emit=self.emit,
            stopping=stopping,
        )
        self._sender = Sender(store, self.budget, run=run, stopping=stopping, heard=heard)
        self._models: dict[tuple[Any, ...], tuple[ModelSpec, BoundModel]] = {}
        self._flights: dict[str, asyncio.Future[Answer]] = {}

    def model(
        self,
        role: str,
        spec: ModelSpec,
        *,
        stage: str,
        weights: Weights | None = None,
        quantization: str | None = None,
        fallback: Sequence[Backup] = (),
        seed: int | None = None,
    ) -> Model:
        """A model bound to a role and to the stage that asks. `weights` are needed where the spec names a stage.
        `fallback`: the roles that the spec names as such, in its order. `seed`: in place of the run's."""
        known = (role, stage, quantization, id(spec), weights.sha256 if weights else None)
        if (found := self._models.get(known)) is not None:
            return found[1]
        lines = [self._lines.get(role, spec, weights, quantization)]
        lines += [self._lines.get(name, other, its, None) for name, other, its in fallback]
        caller = _Caller(role, stage, tuple(lines), self.counters[stage], self.seed if seed is None else seed)
        first = lines[0].provider
        bound = BoundModel(role, first.identity, first.context, partial(self._answer, caller), caller.counts)
        self._models[known] = spec, bound  # the spec stays alive, so that its id stays its own
        return bound

    def window(self, specs: Sequence[ModelSpec]) -> int:
        """How many records a stage that asks these models should have under way now, so that no slot waits while
        answers are committed and parsed."""
        return self._lines.window(specs)

    def lines(self) -> list[LineStatus]:
        """What goes on at each provider now."""
        return self._lines.status()

    async def close(self) -> None:
        """Let go of engines and connections, and of what the budget holds: of each, whatever the others say. All may
        be asked again."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.budget.close)
            stack.push_async_callback(self._lines.close)
            stack.push_async_callback(self._sender.close)

    async def _answer(self, caller: _Caller, request: Request, *, sample: int, attempt: int) -> Answer:
        """The stored answer of any provider, else a new one of the first that serves; one that serves nobody hands its
        requests to the next."""
        asked = [(line, *_keyed(line, request, sample, attempt, caller.seed)) for line in caller.lines]
        several = len(asked) > 1
        if several:
            for line, key, _ in asked:
                if (answer := await self._stored(line, caller, key)) is not None:
                    return answer
        failure: ProviderError | None = None
        for line, key, content in _to_ask(asked) if several else asked:
            answered = line.answered
            try:
                return await self._from(line, caller, request, key, content)
            except Unusable as error:
                line.turned_away += 1
                failure = error
            except Unanswered as error:
                if not several or line.answered > answered:  # others are served: it is this request
                    raise
                failure = error
            if several and line.mark_down(failure):
                log("fail-over", role=caller.role, model=line.identity, error=failure.message)
                self.emit("model.down", role=caller.role, model=line.identity, error=failure.message)
        raise _unserved(caller, failure)

    async def _stored(self, line: Line, caller: _Caller, key: str) -> Answer | None:
        stored = await self.store.response(key)
        if stored is None:
            return None
        caller.counts["cached"] += 1
        detail("found", role=caller.role, request=key)
        answer = read_answer(key, line.identity, stored["reply"])
        if self._sender.heard is not None:
            self._sender.heard(caller.role, caller.stage, answer.usage, None, 0)
        return answer

    async def _from(self, line: Line, caller: _Caller, request: Request, key: str, content: bytes) -> Answer:
        """The stored answer, the one in flight, or a new one: durable when this returns."""
        while (flight := self._flights.get(key)) is not None:
            try:
                answer = await asyncio.shield(flight)
            except asyncio.CancelledError:
                if flight.cancelled() and not cancelling():
                    continue  # the one who asked gave up: ask ourselves
                raise
            caller.counts["shared"] += 1
            return answer
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            found = await self._stored(line, caller, key)
            answer = found or await self._ask(line, caller, request, key, content)
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

    async def _ask(self, line: Line, caller: _Caller, request: Request, key: str, content: bytes) -> Answer:
        if not self.asks:
            raise NotKept(f"the store holds no answer of `{caller.role}` under {key} ({line.identity})")
        if not line.joined:
            await self._lines.join(line)
        if request.temperature > 0:
            request = replace(request, seed=int(key[:8], 16) & 0x7FFFFFFF)
        tokens, most = line.provider.input_bound(request), request.max_tokens
        bid = Bid(tokens + most, line.price.most(tokens, most), line.batcher is not None)
        call = Call(line, caller.role, caller.stage, caller.counts, request, key, content, tokens, bid)
        was_down = line.down
        answer = await self._sender.answer(call)
        line.turned_away = 0
        if was_down is not None and line.down is was_down:  # not an answer that was under way when it went down
            line.down = None
            self.emit("model.up", role=caller.role, model=line.identity)
        return answer


def _keyed(line: Line, request: Request, sample: int, attempt: int, seed: int) -> tuple[str, bytes]:
    """The key of a question to this line, and what is hashed for it."""
    content = content_of(line.identity, request, sample=sample, attempt=attempt, seed=seed)
    return hashlib.sha256(content).hexdigest(), content


def _to_ask(asked: list[_Asked]) -> Iterator[_Asked]:
    """Those that serve, in order, each looked at when its turn comes; all of them where none does."""
    none = True
    for one in asked:
        if one[0].lets_in():
            none = False
            yield one
    if none:
        yield from asked


def _unserved(caller: _Caller, error: ProviderError | None) -> ProviderError:
    """A line that has never answered, or that serves nobody any more, stops the run: what is wrong with it is wrong
    for every record."""
    if not isinstance(error, Unusable) or not all(line.serves_nobody(error) for line in caller.lines):
        return error or ProviderError(f"the role {caller.role} has no model")
    also = ", nor those that stand in for it" if len(caller.lines) > 1 else ""
    return Unreachable(
        f"the model `{caller.role}` cannot be asked{also}: {error.message}",
        error.hint or "Mend its entry in `models`, or the server, and run the same command again.",
        transient=True,
    )


def _silent(event: str, **data: Any) -> None:
    """No one listens."""
