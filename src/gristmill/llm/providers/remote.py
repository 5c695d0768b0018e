"""A model behind an address, asked over HTTP. Plain dictionaries; an SDK costs ten to forty times the CPU.

What a protocol is made of (bodies, answers, ways of demanding JSON) is `openai` and `anthropic`; that a server is asked
as it is known to take it, and otherwise where it does not, is the same for all.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from gristmill.core.secrets import resolve
from gristmill.llm.limits.quota import Quota
from gristmill.llm.provider import Reply, Request, Unanswered
from gristmill.llm.providers.demand import Demands, fits
from gristmill.llm.providers.probe import Notes, Probe, Traits
from gristmill.llm.providers.reading import malformed
from gristmill.llm.spec import RemoteSpec, remote_identity
from gristmill.llm.wire.failure import BadRequest
from gristmill.llm.wire.http import Patience, Wire

MESSAGE_OVERHEAD = 16  # tokens of template around one message; the widest common template takes 11
BY_SCHEMA = frozenset({"schema", "bare"})  # ways of demanding JSON in which the server itself is told what it must hold


class Pieces(Protocol):
    """Gathers an answer that comes in pieces. `take` says whether a piece brought some of it; `body` is the whole, as
    if it had come at once."""

    def take(self, data: bytes) -> bool: ...

    def body(self) -> dict[str, Any]: ...


class RemoteProvider(ABC):
    """One model at one server. `notes` remember what it was found to take; `without` is what it is known to refuse."""

    shared = True
    context: int | None = None
    ways: Mapping[str, tuple[str, ...]]  # of demanding JSON, by the recipe's json_mode
    optional: tuple[str, ...]  # parameters that may be left out

    def __init__(
        self,
        spec: RemoteSpec,
        *,
        auth: Callable[[str], dict[str, str]],
        headers: Mapping[str, str],
        notes: Notes | None,
        without: frozenset[str] = frozenset(),
    ) -> None:
        self.spec = spec
        self.identity = remote_identity(spec)
        self.attempts = spec.attempts
        patience = Patience(spec.connect_timeout, spec.first_token_timeout, spec.idle_timeout, spec.timeout)
        self.wire = Wire(spec.url(), api_key=spec.api_key, patience=patience, headers=headers, auth=auth)
        self.demands = Demands()
        self._notes, self._without = notes, without
        self._probe: Probe | None = None

    @property
    def name(self) -> str:
        """Host, model, and what tells two keys apart without being one: limits are counted per key."""
        name = f"{urlsplit(self.wire.url).netloc} {self.spec.model}"
        if self.spec.api_key is None:
            return name
        return f"{name} key:{hashlib.sha256(resolve(self.spec.api_key).encode()).hexdigest()[:6]}"

    @property
    def probe(self) -> Probe:
        return self._probe or self._begin()

    async def send(self, request: Request) -> Reply:
        probe = self.probe
        if not probe.recalled:
            await probe.recall()
        while True:
            traits = probe.traits
            try:
                answer, quota = await self._ask(*self.body(request, traits))
            except BadRequest as error:
                if not probe.refused(error, traits, request.schema_name):
                    raise
                continue
            reply = self.read(request, answer, traits)
            reply.quota = quota
            if request.schema is not None and reply.finish == "stop":
                if fits(reply.text, request.schema, by_keys=traits.json in BY_SCHEMA):
                    await probe.answered(traits, request.schema_name)
                elif probe.ignored(traits):
                    message = f"{self.wire.url} ignores the demand for JSON ({traits.json}); it is asked otherwise"
                    raise Unanswered(message, charged=True, usage=reply.usage, quota=quota)
            elif traits is not probe.kept:
                await probe.answered(traits, "")
            return reply

    @abstractmethod
    def body(self, request: Request, traits: Traits | None = None) -> tuple[str, dict[str, Any]]:
        """Path and body of a request, asked as the server is known to take it."""

    def read(self, request: Request, answer: dict[str, Any], traits: Traits | None = None) -> Reply:
        """An answer's body as a Reply. What is not as the protocol says is no answer, and may be asked for again."""
        try:
            return self._read(request, answer, traits)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise malformed(answer) from error

    @abstractmethod
    def _read(self, request: Request, answer: dict[str, Any], traits: Traits | None) -> Reply:
        """The same, of a body that is as the protocol says."""

    @abstractmethod
    def pieces(self, path: str) -> Pieces:
        """What gathers the answer of a stream."""

    def input_bound(self, request: Request) -> int:
        """Every token takes at least one byte of text; around each message stands some template."""
        if isinstance(request.prompt, tuple):
            return len(request.prompt)
        texts = [*(m["content"] for m in request.messages), *request.texts, request.prompt or ""]
        bound = sum(len(t) if t.isascii() else len(t.encode()) for t in texts) + MESSAGE_OVERHEAD * len(texts)
        return bound if request.schema is None else bound + self.demands.of(request.schema).size

    async def close(self) -> None:
        await self.wire.close()

    def _begin(self) -> Probe:
        ways = self.ways[self.spec.json_mode]
        self._probe = Probe(self.name, ways=ways, optional=self.optional, without=self._without, notes=self._notes)
        return self._probe

    async def _ask(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], Quota | None]:
        if "stream" not in body:
            return await self.wire.post(path, body)
        pieces = self.pieces(path)
        quota = await self.wire.stream(path, body, pieces.take)
        return pieces.body(), quota
