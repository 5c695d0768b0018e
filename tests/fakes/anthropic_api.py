"""The wire format of Anthropic's Messages API: messages, streams, errors and limits.

From its reference (platform.claude.com/docs/en/api/messages, …/errors, …/rate-limits, …/build-with-claude/streaming and
…/structured-outputs). Formats without bounds are all it takes (`output_config`); tools take any schema.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web
from tests.fakes.answers import Said, shown_schema, tokens_of
from tests.fakes.fake import Fake, Quota

_KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 500: "api_error",
    504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_BOUNDS = ("maxLength", "minLength", "maxItems", "minimum", "maximum", "pattern")
_KNOWN = {
    "model", "max_tokens", "messages", "system", "temperature", "top_p", "top_k", "stop_sequences", "stream", "tools",
    "tool_choice", "thinking", "metadata", "output_config",
}  # fmt: skip


class AnthropicApi:
    key_header = "x-api-key"

    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def key_of(self, request: web.Request) -> str:
        return request.headers.get("x-api-key", "")

    def error(self, status: int, message: str, *, kind: str = "", param: str = "") -> dict[str, Any]:
        error: dict[str, Any] = {"type": _KINDS.get(status, "api_error"), "message": message}
        if kind == "insufficient_quota":
            error["details"] = {"error_code": "enforced_spend_limit_reached"}
            error["message"] = "Your organization has reached its limit."
        return {"type": "error", "error": error, "request_id": "req_fake"}

    def complaint(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        options = self.fake.options
        if options.model and body.get("model") != options.model:
            return 404, self.error(404, f"model: {body.get('model')}")
        if not isinstance(body.get("max_tokens"), int):
            return 400, self.error(400, "max_tokens: Field required")
        if extra := sorted(body.keys() - _KNOWN):
            return 400, self.error(400, f"{extra[0]}: Extra inputs are not permitted")
        if any(message["role"] not in ("user", "assistant") for message in body["messages"]):
            return 400, self.error(
                400, 'messages: Unexpected role "system". The system prompt is a top-level parameter.'
            )
        if "temperature" in options.refuses.split(",") and "temperature" in body:
            return 400, self.error(400, "`temperature` is deprecated for this model.")
        tokens = tokens_of(json.dumps(body["messages"]))
        if options.context and tokens > options.context:
            return 400, self.error(400, f"prompt is too long: {tokens} tokens > {options.context} maximum")
        if options.poor:
            return 400, self.error(400, "Your credit balance is too low to access the Anthropic API.")
        return self._about_json(body)

    def _about_json(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        modes = self.fake.options.json_modes.split(",")
        if "output_config" in body:
            if "json_schema" not in modes:
                return 400, self.error(400, "output_config.format: structured outputs are not supported by this model")
            text = json.dumps(body["output_config"]["format"]["schema"])
            if found := next((name for name in _BOUNDS if f'"{name}":' in text), None):
                return 400, self.error(400, f"output_config.format.schema: property '{found}' is not supported")
        if "tool_choice" in body and "tool" not in modes:
            return 400, self.error(400, "tool_choice: this model does not support tools")
        return None

    def answer(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        options = self.fake.options
        prompt = next((m["content"] for m in reversed(body["messages"]) if m["role"] == "user"), "")
        schema, limit = _schema(body), body["max_tokens"]
        said = Said(options, prompt=prompt, key=key, schema=schema, turns=len(body["messages"]), limit=limit)
        content: list[dict[str, Any]] = []
        if said.thoughts:
            content.append({"type": "thinking", "thinking": said.thoughts, "signature": "c2lnbmVk"})
        stop = "max_tokens" if said.length else "end_turn"
        if "tool_choice" in body and not said.empty:
            stop = "tool_use" if stop == "end_turn" else stop
            value = json.loads(said.text) if said.text.startswith("{") and not said.length else {}
            content.append({"type": "tool_use", "id": "toolu_1", "name": body["tools"][0]["name"], "input": value})
        elif said.text:
            content.append({"type": "text", "text": said.text})
        reply = {"id": f"msg_{key[:12]}", "type": "message", "role": "assistant", "model": body["model"]}
        reply |= {
            "content": content,
            "stop_reason": options.finish or stop,
            "stop_sequence": None,
            "stop_details": None,
        }
        if said.refused:
            details = {"type": "refusal", "category": None, "explanation": "This is not answered here."}
            reply |= {"content": [], "stop_reason": "refusal", "stop_details": details}
        if not options.no_usage:
            reply["usage"] = _usage(said)
        return reply

    def events(self, path: str, body: dict[str, Any], answer: dict[str, Any]) -> list[bytes]:
        """A message in the order of its making, with a ping in its middle."""
        usage = answer.get("usage")
        start = {**answer, "content": [], "stop_reason": None}
        if usage:
            start["usage"] = usage | {"output_tokens": 1}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": start}, {"type": "ping"}]
        for index, block in enumerate(answer["content"]):
            events.append({"type": "content_block_start", "index": index, "content_block": _empty(block)})
            events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in _deltas(block)]
            events.append({"type": "content_block_stop", "index": index})
        why = {name: answer[name] for name in ("stop_reason", "stop_sequence", "stop_details")}
        spent = {"output_tokens": usage["output_tokens"], "input_tokens": None} if usage else None
        events += [{"type": "message_delta", "delta": why, "usage": spent}, {"type": "message_stop"}]
        if self.fake.options.stream_error:
            events[2:] = [self.error(529, "Overloaded")]
        return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]

    def limit_headers(self, quota: Quota) -> dict[str, str]:
        until = datetime.now(UTC) + timedelta(seconds=quota.reset)
        return {
            "anthropic-ratelimit-requests-limit": str(quota.limit),
            "anthropic-ratelimit-requests-remaining": str(quota.left),
            "anthropic-ratelimit-requests-reset": until.isoformat().replace("+00:00", "Z"),
        }


def mount(app: web.Application, fake: Fake) -> None:
    api = AnthropicApi(fake)

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.headers.get("anthropic-version") != "2023-06-01":
            error = api.error(400, "anthropic-version: header is required")
            return web.json_response(error, status=400)
        return await fake.handle(request, api)

    app.router.add_post("/v1/messages", handle)


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    if "output_config" in body:
        return body["output_config"]["format"]["schema"]
    if "tool_choice" in body:
        return body["tools"][0]["input_schema"]
    return shown_schema(body["messages"])


def _usage(said: Said) -> dict[str, Any]:
    """What the cache served stands beside the input, not inside it."""
    usage: dict[str, Any] = {"input_tokens": said.tokens_in - said.cached, "output_tokens": said.tokens_out}
    usage |= {"cache_read_input_tokens": said.cached, "cache_creation_input_tokens": 0, "service_tier": "standard"}
    if said.thought_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": said.thought_tokens}
    return usage


def _empty(block: dict[str, Any]) -> dict[str, Any]:
    blank: dict[str, Any] = {"text": "", "thinking": "", "signature": "", "input": {}}
    return {name: blank.get(name, value) for name, value in block.items()}


def _deltas(block: dict[str, Any]) -> list[dict[str, Any]]:
    if block["type"] == "tool_use":
        return [{"type": "input_json_delta", "partial_json": part} for part in _cut(json.dumps(block["input"]))]
    if block["type"] == "text":
        return [{"type": "text_delta", "text": part} for part in _cut(block["text"])]
    parts = [{"type": "thinking_delta", "thinking": part} for part in _cut(block["thinking"])]
    return [*parts, {"type": "signature_delta", "signature": block["signature"]}]


def _cut(text: str) -> list[str]:
    return [text[at : at + 7] for at in range(0, len(text), 7)]
