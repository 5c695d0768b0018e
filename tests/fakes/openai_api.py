"""The wire format of OpenAI: chat completions, completions, embeddings, models, streams and errors.

From its reference (platform.openai.com/docs/api-reference) and error guide (…/docs/guides/error-codes); the words of
errors are those it sends. What a server of this kind may not know is an option: parameters (`--refuses`), ways of
demanding JSON (`--json-modes`), bounds in schemas (`--no-bounds`), the schema itself (`--ignores-json`).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from aiohttp import web
from tests.fakes.answers import Said, shown_schema, tokens_of, vector
from tests.fakes.fake import Fake, Quota

_BOUNDS = ("maxLength", "minLength")
_KINDS = {401: "invalid_request_error", 429: "requests", 500: "server_error", 503: "server_error"}


class OpenAIApi:
    key_header = "Authorization"

    def __init__(self, fake: Fake) -> None:
        self.fake = fake

    def key_of(self, request: web.Request) -> str:
        return request.headers.get("Authorization", "").removeprefix("Bearer ")

    def error(self, status: int, message: str, *, kind: str = "", param: str = "") -> dict[str, Any]:
        if self.fake.options.style == "fastapi":
            return {"detail": [{"type": "extra_forbidden", "loc": ["body", param], "msg": message}]}
        known = kind == "insufficient_quota"
        what = kind if known else _KINDS.get(status, "invalid_request_error")
        code = "rate_limit_exceeded" if status == 429 and not kind else kind or None
        return {"error": {"message": message, "type": what, "param": param or None, "code": code}}

    def complaint(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        options = self.fake.options
        if options.model and body.get("model") != options.model:
            message = f"The model `{body.get('model')}` does not exist or you do not have access to it."
            return 404, self.error(404, message, kind="model_not_found")
        for name in filter(None, options.refuses.split(",")):
            if name in body:
                return self._refused(name, body[name])
        prompt = _prompt(body)
        asked = tokens_of(prompt) + _limit(body)
        if options.context and asked > options.context:
            message = (
                f"This model's maximum context length is {options.context} tokens. However, you requested {asked} "
                "tokens. Please reduce the length of the messages."
            )
            return 400, self.error(400, message, kind="context_length_exceeded", param="messages")
        if options.blocked and options.blocked in prompt:
            message = "The response was filtered due to the prompt triggering our content management policy."
            return 400, self.error(400, message, kind="content_filter", param="prompt")
        return self._about_json(body) if path.endswith("/chat/completions") else None

    def _refused(self, name: str, value: Any) -> tuple[int, dict[str, Any]]:
        if self.fake.options.style == "fastapi":
            return 422, self.error(422, "Extra inputs are not permitted", param=name)
        if name == "temperature":
            message = (
                f"Unsupported value: 'temperature' does not support {value} with this model. "
                "Only the default (1) value is supported."
            )
            return 400, self.error(400, message, kind="unsupported_value", param=name)
        message = f"Unsupported parameter: '{name}' is not supported with this model."
        if name == "max_tokens":
            message += " Use 'max_completion_tokens' instead."
        return 400, self.error(400, message, kind="unsupported_parameter", param=name)

    def _about_json(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        form = body.get("response_format")
        if form is None:
            return None
        if form["type"] not in self.fake.options.json_modes.split(","):
            message = f"Invalid parameter: 'response_format' of type '{form['type']}' is not supported with this model."
            return 400, self.error(400, message, param="response_format")
        if form["type"] == "json_object" and "json" not in json.dumps(body["messages"]).lower():
            message = (
                "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'."
            )
            return 400, self.error(400, message, param="messages")
        if form["type"] == "json_schema" and self.fake.options.no_bounds:
            text = json.dumps(form["json_schema"]["schema"])
            if found := next((name for name in _BOUNDS if f'"{name}":' in text), None):
                name = form["json_schema"]["name"]
                message = f"Invalid schema for response_format '{name}': In context=(), '{found}' is not permitted."
                return 400, self.error(400, message, param="response_format")
        return None

    def answer(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        options = self.fake.options
        if options.hidden:
            return {"error": {"message": "Provider returned error", "code": options.hidden}}
        if path.endswith("/embeddings"):
            return _embeddings(body)
        chat, prompt = path.endswith("/chat/completions"), _prompt(body)
        turns, schema = len(body.get("messages", ())), _schema(body)
        said = Said(options, prompt=prompt, key=key, schema=schema, turns=turns, limit=_limit(body))
        text, finish = said.text, "length" if said.length else "stop"
        choice: dict[str, Any] = {"index": 0, "finish_reason": options.finish or finish}
        if said.filtered:
            text, choice["finish_reason"] = text[: len(text) // 2], "content_filter"
        if chat:
            choice |= {"message": _message(said, text, options.think), "logprobs": None}
        else:
            choice |= {"text": text, "logprobs": _logprobs(text, options.logprobs) if body.get("logprobs") else None}
        reply = {"id": f"chatcmpl-{key[:12]}", "created": 1700000000, "model": body.get("model", "fake")}
        reply |= {"object": "chat.completion" if chat else "text_completion", "choices": [choice]}
        if not options.no_usage:
            reply["usage"] = _usage(said)
        return reply

    def events(self, path: str, body: dict[str, Any], answer: dict[str, Any]) -> list[bytes]:
        """Chunks of an answer: a role, pieces, a reason, the usage where it was asked for, and the end."""
        chat = path.endswith("/chat/completions")
        (choice,) = answer["choices"]
        head = {**{k: answer[k] for k in ("id", "created", "model")}, "object": "chat.completion.chunk"}
        pieces: list[dict[str, Any]] = []
        if chat:
            pieces.append({"delta": {"role": "assistant", "content": ""}})
            for name in ("reasoning_content", "reasoning", "refusal", "content"):
                pieces += [{"delta": {name: part}} for part in _cut(choice["message"].get(name) or "")]
        else:
            pieces += [{"text": part} for part in _cut(choice["text"])]
            if choice["logprobs"]:
                pieces.append({"text": "", "logprobs": choice["logprobs"]})
        pieces.append({**({"delta": {}} if chat else {"text": ""}), "finish_reason": choice["finish_reason"]})
        chunks = [{**head, "choices": [{"index": 0, "finish_reason": None, **piece}]} for piece in pieces]
        if (body.get("stream_options") or {}).get("include_usage") and "usage" in answer:
            chunks.append({**head, "choices": [], "usage": answer["usage"]})
        return [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]

    def limit_headers(self, quota: Quota) -> dict[str, str]:
        return {
            "x-ratelimit-limit-requests": str(quota.limit),
            "x-ratelimit-remaining-requests": str(quota.left),
            "x-ratelimit-reset-requests": f"{round(quota.reset * 1000)}ms",
        }


def mount(app: web.Application, fake: Fake) -> None:
    api = OpenAIApi(fake)

    async def handle(request: web.Request) -> web.StreamResponse:
        return await fake.handle(request, api)

    async def models(_: web.Request) -> web.Response:
        known = fake.options.model or "fake"
        return web.json_response({"object": "list", "data": [{"id": known, "object": "model", "owned_by": "fake"}]})

    for name in ("chat/completions", "completions", "embeddings"):
        app.router.add_post(f"/v1/{name}", handle)
    app.router.add_get("/v1/models", models)


def _message(said: Said, text: str, think: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if said.refused:
        return message | {"content": None, "refusal": "I'm sorry, I cannot assist with that request."}
    if think == "tags":
        message["content"] = f"<think>\n{said.thoughts}\n</think>\n\n{text}"
    elif think == "closed":  # the template opened the thoughts
        message["content"] = f"{said.thoughts}\n</think>\n\n{text}"
    elif think:
        message[think] = said.thoughts
    return message


def _usage(said: Said) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "prompt_tokens": said.tokens_in,
        "completion_tokens": said.tokens_out,
        "total_tokens": said.tokens_in + said.tokens_out,
    }
    if said.cached:
        usage["prompt_tokens_details"] = {"cached_tokens": said.cached, "audio_tokens": 0}
    if said.thought_tokens:
        usage["completion_tokens_details"] = {"reasoning_tokens": said.thought_tokens}
    return usage


def _logprobs(text: str, form: str) -> dict[str, Any]:
    """Of old, lists side by side; llama.cpp and others send what chat completions send, with ids."""
    words = text.split()
    ids = [int(hashlib.sha256(word.encode()).hexdigest()[:4], 16) for word in words]
    values = [-(i % 100) / 100 for i in ids]
    if form == "lists":
        return {"tokens": words, "token_logprobs": values, "top_logprobs": None, "text_offset": []}
    return {"content": [{"id": i, "token": w, "logprob": p} for i, w, p in zip(ids, words, values, strict=True)]}


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return form["json_schema"]["schema"]
    if "json_schema" in body:
        return body["json_schema"]
    return shown_schema(body.get("messages", []))


def _prompt(body: dict[str, Any]) -> str:
    if "messages" in body:
        said = [m["content"] for m in body["messages"] if m["role"] == "user"]
        return said[-1] if said else ""
    prompt = body.get("prompt", "")
    return prompt if isinstance(prompt, str) else " ".join(f"t{i}" for i in prompt)


def _limit(body: dict[str, Any]) -> int:
    return int(body.get("max_tokens") or body.get("max_completion_tokens") or 1 << 30)


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    rows = [{"object": "embedding", "index": n, "embedding": vector(text)} for n, text in enumerate(texts)]
    tokens = sum(tokens_of(text) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": rows, "model": body.get("model"), "usage": usage}


def _cut(text: str) -> list[str]:
    return [text[at : at + 7] for at in range(0, len(text), 7)]
