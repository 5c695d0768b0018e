"""The lines of one process: a provider for each model that a recipe names, made when it is first asked for."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from gristmill.core.errors import ConfigError
from gristmill.core.records import digest_of
from gristmill.core.store import Store
from gristmill.llm.limits.limiter import CEILING, START, Limiter
from gristmill.llm.limits.shares import Shares
from gristmill.llm.line import Line, LineStatus, status_of
from gristmill.llm.prices import demand_price, price_of
from gristmill.llm.provider import Provider
from gristmill.llm.spec import AnthropicSpec, LocalSpec, ModelSpec, OpenAISpec, RemoteSpec
from gristmill.llm.waits import cancelling, stopped

if TYPE_CHECKING:
    from gristmill.llm.batch.batcher import Batcher
    from gristmill.models.weights import Weights


class Lines:
    """Whoever asks the same server for the same model with the same key shares a limiter, and its limits with other
    processes of the workspace."""

    def __init__(
        self,
        store: Store,
        *,
        workspace: Path,
        base: Path,
        in_dollars: bool,
        emit: Callable[..., None],
        stopping: Callable[[], bool],
    ) -> None:
        self._store = store
        self._workspace = workspace
        self._base = base
        self._in_dollars = in_dollars  # a budget: every price must be known
        self._emit = emit
        self._stopping = stopping
        self._lines: dict[str, Line] = {}
        self._by_spec: dict[int, tuple[ModelSpec, Line]] = {}  # a spec that lives keeps its id
        self._limiters: dict[str, Limiter] = {}
        self._shares = Shares(store)
        self._joined: dict[str, asyncio.Future[None]] = {}

    def get(self, role: str, spec: ModelSpec, weights: Weights | None, quantization: str | None) -> Line:
        name = digest_of([spec.model_dump(mode="json"), weights.sha256 if weights else None, quantization])
        line = self._lines.get(name)
        if line is None:
            price = demand_price(role, spec) if self._in_dollars else price_of(spec)
            provider = self._provider(role, spec, weights, quantization)
            batcher = self._batcher(provider, spec)
            line = self._lines[name] = Line(provider, self._limiter(provider, spec), price, batcher)
        line.roles.add(role)
        self._by_spec[id(spec)] = spec, line
        return line

    async def join(self, line: Line) -> None:
        """Take part in the limits that other processes share, before the first request."""
        name = line.provider.name
        joining = self._joined.get(name)
        if joining is None:
            joining = self._joined[name] = asyncio.ensure_future(self._shares.join(name, line.limiter))
        try:
            await asyncio.shield(joining)
        except asyncio.CancelledError:
            if joining.cancelled() and not cancelling():
                raise stopped() from None  # the lines were closed meanwhile
            raise
        line.joined = True

    def window(self, specs: Sequence[ModelSpec]) -> int:
        """Twice what is in flight at most; in batches, two of them."""
        return max((self._window(spec) for spec in specs), default=1)

    def status(self) -> list[LineStatus]:
        by_limiter: dict[int, list[Line]] = defaultdict(list)
        for line in self._lines.values():
            by_limiter[id(line.batcher or line.limiter)].append(line)
        return [status_of(lines) for lines in by_limiter.values()]

    async def close(self) -> None:
        """Let go of engines and connections: of each, whatever the others say. What was learned stays, and all may be
        asked again."""
        joining, self._joined = list(self._joined.values()), {}
        for join in joining:
            join.cancel()
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._shares.close)
            for line in self._lines.values():
                line.joined = not line.provider.shared
                stack.push_async_callback(line.provider.close)
                if line.batcher is not None:
                    stack.push_async_callback(line.batcher.close)
            await asyncio.gather(*joining, return_exceptions=True)

    def _provider(self, role: str, spec: ModelSpec, weights: Weights | None, quantization: str | None) -> Provider:
        if isinstance(spec, OpenAISpec):
            from gristmill.llm.providers.openai import OpenAIProvider

            return OpenAIProvider(spec, notes=self._store)
        if isinstance(spec, AnthropicSpec):
            from gristmill.llm.providers.anthropic import AnthropicProvider

            return AnthropicProvider(spec, notes=self._store)
        from gristmill.llm.local.provider import LocalProvider

        if weights is None:
            if not isinstance(spec, LocalSpec):
                raise ConfigError(
                    f"the model {role} is trained by a stage that has not run", "Let that stage run first."
                )
            from gristmill.models.weights import locate

            weights = locate(spec.model, base=self._base, hasher=self._store.file_hash)
        return LocalProvider(spec, weights, quantization=quantization, workspace=self._workspace, emit=self._emit)

    def _batcher(self, provider: Provider, spec: ModelSpec) -> Batcher | None:
        if not isinstance(spec, RemoteSpec) or spec.batch is None:
            return None
        from gristmill.llm.batch.batcher import batcher_of

        return batcher_of(provider, self._store, spec.batch, stopping=self._stopping)

    def _limiter(self, provider: Provider, spec: ModelSpec) -> Limiter:
        if not provider.shared:  # an engine of our own has slots of its own
            return _new_limiter(spec)
        limiter = self._limiters.get(provider.name)
        if limiter is None:
            limiter = self._limiters[provider.name] = _new_limiter(spec)
        return limiter

    def _window(self, spec: ModelSpec) -> int:
        if isinstance(spec, RemoteSpec) and spec.batch is not None:
            return 2 * spec.batch.size
        known = self._by_spec.get(id(spec))
        return 2 * (known[1].limiter.limit if known else spec.concurrency or START)


def _new_limiter(spec: ModelSpec) -> Limiter:
    if not isinstance(spec, RemoteSpec):  # an engine has so many slots
        return Limiter(ceiling=spec.concurrency, start=spec.concurrency, adaptive=False)
    most = spec.concurrency
    return Limiter(ceiling=most or CEILING, start=most or START, adaptive=True, rpm=spec.rpm, tpm=spec.tpm)
