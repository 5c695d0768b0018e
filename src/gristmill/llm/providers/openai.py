"""Any server that speaks the OpenAI protocol: chat, completions, embeddings."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from gristmill.core.errors import ProviderError
from gristmill.llm.provider import Reply, Request
from gristmill.llm.providers.demand import Demand, in_words
from gristmill.llm.providers.openai_reply import Gathered, read_chat, read_completion, read_embeddings
from gristmill.llm.providers.probe import Notes, Traits
from gristmill.llm.providers.remote import RemoteProvider
from gristmill.llm.spec import OpenAISpec
from gristmill.llm.wire.http import bearer

WAYS = {
    "auto": ("schema", "bare", "object", "prompt"),
    "schema": ("schema", "bare"),
    "object": ("object",),
    "prompt": ("prompt",),
}
"""How JSON is demanded, by the recipe's json_mode: by the schema, by the schema without its bounds (OpenAI's own
decoder knows none for texts), as any JSON object, in words alone."""

OPTIONAL = ("max_tokens", "temperature", "seed", "stop", "stream_options")


class OpenAIProvider(RemoteProvider):
    ways = WAYS
    optional = OPTIONAL

    def __init__(self, spec: OpenAISpec, *, notes: Notes | None = None) -> None:
        # OpenAI itself refuses the old name of the limit for its newer models; most other servers know only the old.
        without = frozenset({"max_tokens"} if urlsplit(spec.url()).hostname == "api.openai.com" else ())
        super().__init__(spec, auth=bearer, headers=spec.headers, notes=notes, without=without)

    def body(self, request: Request, traits: Traits | None = None) -> tuple[str, dict[str, Any]]:
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
            demand_json(body, request, self.demands.of(request.schema), traits.json)
        return "/chat/completions", body

    def _read(self, request: Request, answer: dict[str, Any], traits: Traits | None) -> Reply:
        if request.texts:
            return read_embeddings(answer, len(request.texts))
        if request.prompt is not None:
            reply = read_completion(answer)
        else:
            reply = read_chat(answer, may_be_empty=bool(request.stop))
        if request.stop and "stop" in (traits or self.probe.traits).without:
            reply.text = _cut(reply.text, request.stop)
        return reply

    def pieces(self, path: str) -> Gathered:
        return Gathered(chat=path == "/chat/completions")

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


def _cut(text: str, stops: tuple[str, ...]) -> str:
    """The text up to the first stop, for servers that do not stop by themselves."""
    return text[: min((at for stop in stops if (at := text.find(stop)) >= 0), default=len(text))]
