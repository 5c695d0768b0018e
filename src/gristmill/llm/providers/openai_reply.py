"""Answers of servers that speak the OpenAI protocol, whole or in pieces, as Replies."""

from __future__ import annotations

from typing import Any

import orjson

from gristmill.core.ask import Usage
from gristmill.core.secrets import scrub
from gristmill.llm.provider import Reply, Unanswered, Withheld, split_reasoning
from gristmill.llm.providers.reading import WHO, count_of, malformed, not_json, usage_of
from gristmill.llm.wire.failure import hidden_failure

_FINISH: dict[str | None, str] = {
    "stop": "stop",
    "length": "length",
    "eos": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "tool_calls": "stop",
    "max_tokens": "length",
    "model_length": "length",
}
_BROKEN_OFF = frozenset({None, "", "error", "abort", "insufficient_system_resource"})


def read_chat(body: dict[str, Any], *, may_be_empty: bool = False) -> Reply:
    """An answer in a conversation. An empty one without a reason is none: `may_be_empty` is the reason."""
    choice = _choice(body)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise malformed(body)
    usage = read_usage(body)
    content = message.get("content")
    if isinstance(content, str):
        text, thoughts = split_reasoning(content)
    else:
        text, thoughts = _parts(content)
    thoughts = message.get("reasoning_content") or message.get("reasoning") or thoughts
    if refusal := message.get("refusal"):
        raise Withheld(f"the model refused to answer: {scrub(str(refusal))[:500]}", usage=usage)
    finish = _finish(choice, usage)
    if not text and finish == "stop" and not may_be_empty:
        raise Unanswered("the model ended its answer without a word", charged=True, usage=usage)
    return Reply(text, finish, usage, thoughts if isinstance(thoughts, str) else "")


def read_completion(body: dict[str, Any]) -> Reply:
    """A continuation. Token ids come only from servers that send them; log-probabilities in either form."""
    choice = _choice(body)
    text = choice.get("text")
    if not isinstance(text, str):
        raise malformed(body)
    usage = read_usage(body)
    found = choice.get("logprobs") or {}
    content = found.get("content") or []
    ids = tuple(item["id"] for item in content if "id" in item)
    logprobs = tuple(item["logprob"] for item in content) or tuple(
        0.0 if p is None else p for p in found.get("token_logprobs") or ()
    )
    return Reply(text, _finish(choice, usage), usage, tokens=ids, logprobs=logprobs)


def read_embeddings(body: dict[str, Any], count: int) -> Reply:
    rows = body.get("data")
    if not isinstance(rows, list) or len(rows) != count:
        raise hidden_failure(WHO, body) or malformed(body)
    vectors = tuple(tuple(row["embedding"]) for row in sorted(rows, key=lambda row: row["index"]))
    return Reply("", "stop", read_usage(body), vectors=vectors)


def read_usage(body: dict[str, Any]) -> Usage:
    """What was used. Some servers count what the model thought in the total alone: the total is what is billed."""
    usage = body.get("usage")
    if not isinstance(usage, dict):
        return Usage(known=False)
    taken, given = count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))
    whole = count_of(usage.get("total_tokens"))
    if taken is not None and whole is not None and whole >= taken:
        given = max(given or 0, whole - taken)
    cached, reasoning = usage.get("prompt_cache_hit_tokens"), None  # DeepSeek's word for it
    if isinstance(details := usage.get("prompt_tokens_details"), dict):
        cached = details.get("cached_tokens")
    if isinstance(details := usage.get("completion_tokens_details"), dict):
        reasoning = details.get("reasoning_tokens")
    return usage_of(taken, given, cached=cached, reasoning=reasoning)


class Gathered:
    """An answer that comes in pieces. `take` says whether a piece brought some of it; `body` is the whole."""

    def __init__(self, *, chat: bool) -> None:
        self._chat = chat
        self._said: dict[str, list[str]] = {}
        self._finish: str | None = None
        self._usage: dict[str, Any] | None = None
        self._logprobs: dict[str, list[Any]] = {}

    def take(self, data: bytes) -> bool:
        if data == b"[DONE]":
            return False
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise not_json(data) from error
        if not isinstance(event, dict):
            raise malformed({"event": event})
        if failed := hidden_failure(WHO, event):
            raise failed
        self._usage = event.get("usage") or self._usage
        choices = event.get("choices") or [{}]
        return self._choice(choices[0])

    def _choice(self, choice: dict[str, Any]) -> bool:
        self._finish = choice.get("finish_reason") or self._finish
        for name, values in (choice.get("logprobs") or {}).items():
            if isinstance(values, list):
                self._logprobs.setdefault(name, []).extend(values)
        pieces = choice.get("delta") or {} if self._chat else choice
        some = False
        for name in ("content", "reasoning_content", "reasoning", "refusal") if self._chat else ("text",):
            if piece := pieces.get(name):
                self._said.setdefault(name, []).append(piece)
                some = True
        return some

    def body(self) -> dict[str, Any]:
        """As if it had come in one piece."""
        if self._finish is None:
            raise Unanswered("the stream ended in the middle of the answer", charged=True)
        said = {name: "".join(pieces) for name, pieces in self._said.items()}
        what: dict[str, Any] = {"message": {"content": "", **said}} if self._chat else {"text": "", **said}
        return {
            "choices": [{**what, "finish_reason": self._finish, "logprobs": self._logprobs}],
            "usage": self._usage,
        }


def _choice(body: dict[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise hidden_failure(WHO, body) or malformed(body)
    if failed := hidden_failure(WHO, choices[0]):
        raise failed
    return choices[0]


def _finish(choice: dict[str, Any], usage: Usage) -> str:
    reason = choice.get("finish_reason")
    known = _FINISH.get(reason)
    if known is not None:
        return known
    if reason == "content_filter":
        raise Withheld("the provider withheld the answer (content_filter)", usage=usage)
    if reason in _BROKEN_OFF:
        raise Unanswered(f"the provider broke off the answer ({reason or 'no reason'})", charged=True, usage=usage)
    raise Withheld(f"the provider ended the answer in an unknown way: {reason!r}", usage=usage)


def _parts(content: Any) -> tuple[str, str]:
    """Text and thoughts of a content in parts, as Mistral's reasoning models send it."""
    if not isinstance(content, list):
        return "", ""
    text = [p.get("text") or "" for p in content if isinstance(p, dict) and p.get("type") == "text"]
    thought = [p.get("thinking") for p in content if isinstance(p, dict) and p.get("type") == "thinking"]
    inner = [_parts(t)[0] if isinstance(t, list) else str(t or "") for t in thought]
    return "".join(text), "".join(inner)
