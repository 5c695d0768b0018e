"""A question as it is hashed and kept, an answer as it is kept and given."""

from __future__ import annotations

from typing import Any

import orjson

from gristmill.core.ask import Answer, Usage
from gristmill.llm.provider import Reply, Request


def content_of(identity: str, request: Request, *, sample: int, attempt: int, seed: int) -> bytes:
    """Everything that decides an answer, as canonical JSON: its hash is the key, and it is kept beside the answer."""
    content: dict[str, Any] = {
        "model": identity,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "sample": sample,
        "attempt": attempt,
    }
    if request.messages:
        content["messages"] = request.messages
    if request.prompt:
        content["prompt"] = request.prompt
    if request.texts:
        content["texts"] = request.texts
    if request.stop:
        content["stop"] = request.stop
    if request.schema:
        content["schema"] = request.schema
    if request.grammar:
        content["grammar"] = request.grammar
    if request.fresh:
        content["fresh"] = True
    if request.temperature > 0:
        content["seed"] = seed
    return orjson.dumps(content, option=orjson.OPT_SORT_KEYS)


def reply_data(reply: Reply, usage: Usage) -> dict[str, Any]:
    """An answer as it is kept."""
    counted = [usage.input, usage.output, usage.known, usage.cached, usage.reasoning, usage.written]
    data: dict[str, Any] = {"text": reply.text, "finish": reply.finish, "usage": counted}
    if reply.reasoning:
        data["reasoning"] = reply.reasoning
    if reply.tokens:
        data["tokens"] = reply.tokens
    if reply.logprobs:
        data["logprobs"] = reply.logprobs
    if reply.vectors:
        data["vectors"] = reply.vectors
    return data


def answer_of(key: str, model: str, reply: Reply, usage: Usage) -> Answer:
    raw: dict[str, Any] = {}
    if reply.reasoning:
        raw["reasoning"] = reply.reasoning
    if reply.vectors:
        raw["vectors"] = reply.vectors
    return Answer(reply.text, reply.finish, usage, key, model, reply.tokens, reply.logprobs, raw)


def read_answer(key: str, model: str, data: dict[str, Any]) -> Answer:
    """A kept answer. Those that were kept before tokens were told apart have shorter usage."""
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
