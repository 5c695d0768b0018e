"""Any server that speaks the OpenAI protocol: chat, completions, embeddings. Plain dictionaries, no SDK.

An SDK costs ten to forty times the CPU of this per call.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import urlsplit

from gristmill.core.errors import ProviderError
from gristmill.core.secrets import resolve
from gristmill.llm.demand import Demand, Demands, fits, in_words
from gristmill.llm.failure import BadRequest
from gristmill.llm.openai_reply import Gathered, read_chat, read_completion, read_embeddings
from gristmill.llm.probe import Notes, Probe, Traits
from gristmill.llm.provider import Reply, Request, Unanswered
from gristmill.llm.quota import Quota
from gristmill.llm.spec import OpenAISpec, RemoteSpec, remote_identity
from gristmill.llm.wire import Patience, Wire

MESSAGE_OVERHEAD = 16  # tokens of template around one message; the widest common template takes 11

WAYS = {
    "auto": ("schema", "bare", "object", "prompt"),
    "schema": ("schema", "bare"),
    "object": ("object",),
    "prompt": ("prompt",),
}
"""How JSON is demanded, by the recipe's json_mode: by the schema, by the schema without its bounds (OpenAI's own
decoder knows none for texts), as any JSON object, in words alone."""

OPTIONAL = ("max_tokens", "temperature", "seed", "stop", "stream_options")


class OpenAIProvider:
    """One model at one server. `notes` remember what the server was found to take."""

    shared = True
    context: int | None = None

    def __init__(self, spec: OpenAISpec, *, notes: Notes | None = None) -> None:
        self.spec = spec
        self.identity = remote_identity(spec)
        self.attempts = spec.attempts
        self.wire = Wire(spec.url(), api_key=spec.api_key, patience=patience_of(spec), headers=spec.headers)
        self._notes = notes
        self._probe: Probe | None = None
        self._demands = Demands()

    @property
    def name(self) -> str:
        return line_name(self.spec)

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
                if not fits(reply.text, request.schema, by_keys=traits.json in ("schema", "bare")):
                    if probe.ignored(traits):
                        message = f"{self.wire.url} ignores the demand for JSON ({traits.json}); it is asked otherwise"
                        raise Unanswered(message, charged=True, usage=reply.usage, quota=quota)
                    return reply
                await probe.answered(traits, request.schema_name)
            elif traits is not probe.kept:
                await probe.answered(traits, "")
            return reply

    def body(self, request: Request, traits: Traits | None = None) -> tuple[str, dict[str, Any]]:
        """Path and body of a request, asked as the server is known to take it."""
        traits = traits or self.probe.traits
        if request.grammar is not None:
            message = f"{self.wire.url} cannot bind an answer to a grammar"
            raise ProviderError(message, "Use a local model for this stage.")
        if request.texts:
            return "/embeddings", {"model": self.spec.model, "input": request.texts, "encoding_format": "float"}
        body = self._sampling(request, traits.without)
        if request.prompt is not None:
            body |= {"max_tokens": request.max_tokens, "prompt": request.prompt, "logprobs": 1}
            return "/completions", body
        body["max_completion_tokens" if "max_tokens" in traits.without else "max_tokens"] = request.max_tokens
        body["messages"] = request.messages
        if request.schema is not None:
            demand_json(body, request, self._demands.of(request.schema), traits.json)
        return "/chat/completions", body

    def read(self, request: Request, answer: dict[str, Any], traits: Traits | None = None) -> Reply:
        """An answer's body as a Reply."""
        if request.texts:
            return read_embeddings(answer, len(request.texts))
        if request.prompt is not None:
            reply = read_completion(answer)
        else:
            reply = read_chat(answer, may_be_empty=bool(request.stop))
        if request.stop and "stop" in (traits or self.probe.traits).without:
            reply.text = _cut(reply.text, request.stop)
        return reply

    def input_bound(self, request: Request) -> int:
        return byte_bound(request) + (self._demands.of(request.schema).size if request.schema is not None else 0)

    async def close(self) -> None:
        await self.wire.close()

    def _begin(self) -> Probe:
        # OpenAI itself refuses the old name of the limit for its newer models; most other servers know only the old.
        ours = urlsplit(self.wire.url).hostname == "api.openai.com"
        without = frozenset({"max_tokens"}) if ours else frozenset[str]()
        ways = WAYS[self.spec.json_mode]
        self._probe = Probe(self.name, ways=ways, optional=OPTIONAL, without=without, notes=self._notes)
        return self._probe

    async def _ask(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], Quota | None]:
        if not self.spec.stream or path == "/embeddings":
            return await self.wire.post(path, body)
        gathered = Gathered(chat=path == "/chat/completions")
        quota = await self.wire.stream(path, body, gathered.take)
        return gathered.body(), quota

    def _sampling(self, request: Request, without: frozenset[str]) -> dict[str, Any]:
        body: dict[str, Any] = {"model": self.spec.model}
        if "temperature" not in without:
            body["temperature"] = request.temperature
        if request.stop and "stop" not in without:
            body["stop"] = request.stop
        if request.seed is not None and "seed" not in without:
            body["seed"] = request.seed
        if self.spec.stream:
            body["stream"] = True
            if "stream_options" not in without:
                body["stream_options"] = {"include_usage": True}
        return body


def demand_json(body: dict[str, Any], request: Request, demand: Demand, way: str) -> None:
    """Ask for JSON in one of the WAYS."""
    if way in ("schema", "bare"):
        schema = demand.schema if way == "schema" else demand.bare
        form = {"name": request.schema_name, "strict": True, "schema": schema}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
        return
    body["messages"] = in_words(request.messages, demand)
    if way == "object":
        body["response_format"] = {"type": "json_object"}


def line_name(spec: RemoteSpec) -> str:
    """Host, model, and what tells two keys apart without being one: limits are counted per key."""
    name = f"{urlsplit(spec.url()).netloc} {spec.model}"
    if spec.api_key is None:
        return name
    return f"{name} key:{hashlib.sha256(resolve(spec.api_key).encode()).hexdigest()[:6]}"


def patience_of(spec: RemoteSpec) -> Patience:
    return Patience(spec.connect_timeout, spec.first_token_timeout, spec.idle_timeout, spec.timeout)


def byte_bound(request: Request) -> int:
    """Every token takes at least one byte of text; around each message stands some template."""
    if isinstance(request.prompt, tuple):
        return len(request.prompt)
    texts = [*(m["content"] for m in request.messages), *request.texts, request.prompt or ""]
    return sum(len(t) if t.isascii() else len(t.encode()) for t in texts) + MESSAGE_OVERHEAD * len(texts)


def _cut(text: str, stops: tuple[str, ...]) -> str:
    """The text up to the first stop, for servers that do not stop by themselves."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
