"""The Messages API of Anthropic, and servers that speak it (platform.claude.com/docs/en/api/messages).

What differs from the OpenAI protocol: the system's words stand apart from the messages, `max_tokens` is mandatory,
input that a cache served is counted beside the input, and thoughts come as blocks of their own. JSON is demanded by
`output_config.format` (without bounds: its decoder knows none), where a model has that, else by a tool it must use.
There are no completions, no embeddings, no seed.
"""

from __future__ import annotations

from typing import Any

import orjson

from gristmill.core.ask import Usage
from gristmill.core.errors import ProviderError
from gristmill.core.secrets import scrub
from gristmill.llm.provider import Reply, Request, Unanswered, Withheld
from gristmill.llm.providers.demand import Demand, in_words
from gristmill.llm.providers.probe import Notes, Traits
from gristmill.llm.providers.reading import WHO, count_of, malformed, not_json, usage_of
from gristmill.llm.providers.remote import RemoteProvider
from gristmill.llm.spec import AnthropicSpec
from gristmill.llm.wire.failure import hidden_failure

VERSION = "2023-06-01"
PATH = "/messages"

WAYS = {
    "auto": ("schema", "tool", "prompt"),
    "schema": ("schema", "tool"),
    "object": ("tool", "prompt"),  # it has no mode for any JSON object
    "prompt": ("prompt",),
}
OPTIONAL = ("temperature",)
OVERHEAD = (
    512  # tokens that a demand for JSON adds: the system prompt of tool use takes up to 346, that of formats less
)

_FINISH = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


class AnthropicProvider(RemoteProvider):
    ways = WAYS
    optional = OPTIONAL

    def __init__(self, spec: AnthropicSpec, *, notes: Notes | None = None) -> None:
        headers = {"anthropic-version": VERSION, **spec.headers}
        super().__init__(spec, auth=api_key_header, headers=headers, notes=notes)

    def body(self, request: Request, traits: Traits | None = None) -> tuple[str, dict[str, Any]]:
        traits = traits or self.probe.traits
        if request.grammar is not None or request.prompt is not None or request.texts:
            what = "grammars" if request.grammar is not None else "embeddings" if request.texts else "completions"
            raise ProviderError(f"{self.wire.url} has no {what}", "Use another model for this stage.", status=400)
        messages = request.messages
        body: dict[str, Any] = {"model": self.spec.model, "max_tokens": request.max_tokens}
        if system := [m["content"] for m in messages if m["role"] == "system"]:
            body["system"] = "\n\n".join(system)
            messages = tuple(m for m in messages if m["role"] != "system")
        body["messages"] = messages
        if "temperature" not in traits.without:
            body["temperature"] = request.temperature
        if request.stop:
            body["stop_sequences"] = request.stop
        if self.spec.stream:
            body["stream"] = True
        if request.schema is not None:
            demand_json(body, request.schema_name, self.demands.of(request.schema), traits.json)
        return PATH, body

    def _read(self, request: Request, answer: dict[str, Any], traits: Traits | None) -> Reply:  # noqa: ARG002
        return read_message(answer, may_be_empty=bool(request.stop))

    def pieces(self, path: str) -> GatheredMessage:  # noqa: ARG002  (it has but one)
        return GatheredMessage()

    def input_bound(self, request: Request) -> int:
        return super().input_bound(request) + (0 if request.schema is None else OVERHEAD)


def api_key_header(key: str) -> dict[str, str]:
    return {"x-api-key": key}


def demand_json(body: dict[str, Any], name: str, demand: Demand, way: str) -> None:
    if way == "schema":
        body["output_config"] = {"format": {"type": "json_schema", "schema": demand.bare}}
    elif way == "tool":
        tool = {"name": name, "description": "Takes the answer.", "input_schema": demand.schema}
        body |= {"tools": [tool], "tool_choice": {"type": "tool", "name": name}}
    else:
        body["messages"] = in_words(body["messages"], demand)


def read_message(body: dict[str, Any], *, may_be_empty: bool = False) -> Reply:
    """A message. A tool's input is the JSON that was demanded."""
    blocks = body.get("content")
    if not isinstance(blocks, list):
        raise hidden_failure(WHO, body) or malformed(body)
    usage = read_usage(body)
    text, thoughts = [], []
    for block in blocks:
        kind = block.get("type")
        if kind == "text":
            text.append(block["text"])
        elif kind == "tool_use":
            text.append(orjson.dumps(block["input"]).decode())
        elif kind == "thinking":
            thoughts.append(block["thinking"])
    finish = _finish(body, usage)
    if not any(text) and finish == "stop" and not may_be_empty:
        raise Unanswered("the model ended its answer without a word", charged=True, usage=usage)
    return Reply("".join(text), finish, usage, "\n".join(thoughts))


def read_usage(body: dict[str, Any]) -> Usage:
    """Input that the cache served, or took in, is counted beside the input; ours is all of it."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return Usage(known=False)
    plain, given = count_of(usage.get("input_tokens")), count_of(usage.get("output_tokens"))
    cached = count_of(usage.get("cache_read_input_tokens") or 0)
    written = count_of(usage.get("cache_creation_input_tokens") or 0)
    if plain is None or cached is None or written is None:
        return Usage(known=False)
    details = usage.get("output_tokens_details")
    thought = details.get("thinking_tokens") if isinstance(details, dict) else None
    return usage_of(plain + cached + written, given, cached=cached, reasoning=thought, written=written)


class GatheredMessage:
    """A message that comes in pieces. `take` says whether a piece brought some of it; `body` is the whole."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._blocks: dict[int, dict[str, Any]] = {}
        self._inputs: dict[int, list[str]] = {}
        self._ended = False

    def take(self, data: bytes) -> bool:
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise not_json(data) from error
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._delta(event["index"], event["delta"])
        if kind == "error":
            raise hidden_failure(WHO, event) or malformed(event)
        if kind == "message_start":
            self._message = event["message"]
        elif kind == "content_block_start":
            self._blocks[event["index"]] = event["content_block"]
        elif kind == "message_delta":
            self._message |= event["delta"]
            counted = {name: count for name, count in (event.get("usage") or {}).items() if count is not None}
            self._message["usage"] = (self._message.get("usage") or {}) | counted
        elif kind == "message_stop":
            self._ended = True
        return False

    def _delta(self, index: int, delta: dict[str, Any]) -> bool:
        block = self._blocks[index]
        if delta["type"] == "input_json_delta":
            self._inputs.setdefault(index, []).append(delta["partial_json"])
            return True
        for name in ("text", "thinking"):
            if name in delta:
                block[name] = block.get(name, "") + delta[name]
                return True
        return False  # signatures, citations

    def body(self) -> dict[str, Any]:
        """As if it had come in one piece."""
        if not self._ended or not self._message.get("stop_reason"):
            raise Unanswered("the stream ended in the middle of the answer", charged=True)
        for index, pieces in self._inputs.items():
            self._blocks[index]["input"] = _input("".join(pieces))
        return {**self._message, "content": [self._blocks[index] for index in sorted(self._blocks)]}


def _input(text: str) -> Any:
    """A tool's input; one that was cut off in the middle is its text, which no schema accepts."""
    try:
        return orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return text


def _finish(body: dict[str, Any], usage: Usage) -> str:
    reason = body.get("stop_reason")
    if reason in _FINISH:
        return _FINISH[reason]
    if reason == "refusal":
        details = body.get("stop_details") or {}
        why = scrub(str(details.get("explanation") or details.get("category") or "no reason given"))[:500]
        raise Withheld(f"the model refused to answer: {why}", usage=usage)
    if reason in (None, "pause_turn"):  # a pause is for tools that run at the server: nothing of ours goes on
        raise Unanswered(f"the provider broke off the answer ({reason or 'no reason'})", charged=True, usage=usage)
    raise Withheld(f"the provider ended the answer in an unknown way: {reason!r}", usage=usage)
