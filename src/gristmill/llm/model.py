"""A model as a stage sees it (`core.ask.Model`): what to ask, and what to do with an answer that does not do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from gristmill.core.ask import Answer, Parsed
from gristmill.core.errors import Reject
from gristmill.core.logs import log
from gristmill.core.records import Message
from gristmill.llm.provider import Request
from gristmill.llm.schema import parse_json, schema_of

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

SHOWN_ANSWER = 600  # characters of a bad answer shown to the next attempt: enough to mend, too few to fill a context
TRUNCATED = "Your answer was cut off before its end. Answer again, complete and much shorter."
INVALID = "Your answer cannot be used: {problem}\nAnswer again, and change only what is wrong."


class Asker(Protocol):
    """Gets a durable answer to a request."""

    async def __call__(self, request: Request, *, sample: int, attempt: int) -> Answer: ...


class BoundModel:
    """One model in one role, asked by one stage."""

    def __init__(self, role: str, identity: str, context: int | None, asker: Asker, counts: Counter[str]) -> None:
        self.role = role
        self.identity = identity
        self.context = context
        self._asker = asker
        self._counts = counts

    async def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        sample: int = 0,
        grammar: str | None = None,
    ) -> Answer:
        how = {"max_tokens": max_tokens, "temperature": temperature, "stop": tuple(stop), "grammar": grammar}
        request = _chat(messages, **how, fresh=True)
        return await self._asker(request, sample=sample, attempt=0)

    async def ask(
        self,
        messages: Sequence[Message],
        parse: Callable[[str], T],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        sample: int = 0,
        attempts: int = 3,
        grammar: str | None = None,
    ) -> Parsed[T]:
        how = {"max_tokens": max_tokens, "temperature": temperature, "stop": tuple(stop), "grammar": grammar}
        return await self._until(messages, parse, how, sample=sample, attempts=attempts)

    async def structured(
        self,
        messages: Sequence[Message],
        schema: type[M],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        sample: int = 0,
        attempts: int = 3,
    ) -> Parsed[M]:
        how = {
            "max_tokens": max_tokens,
            "temperature": temperature,
            "schema": schema_of(schema),
            "schema_name": schema.__name__,
        }
        return await self._until(messages, lambda text: parse_json(schema, text), how, sample=sample, attempts=attempts)

    async def complete(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        stop: Sequence[str] = (),
        sample: int = 0,
        grammar: str | None = None,
    ) -> Answer:
        request = Request(
            prompt=prompt if isinstance(prompt, str) else tuple(prompt),
            max_tokens=max_tokens,
            temperature=temperature,
            stop=tuple(stop),
            grammar=grammar,
        )
        return await self._asker(request, sample=sample, attempt=0)

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        if not texts:
            return []
        answer = await self._asker(Request(texts=tuple(texts)), sample=0, attempt=0)
        return [list(vector) for vector in answer.raw["vectors"]]

    async def _until(
        self, messages: Sequence[Message], parse: Callable[[str], T], how: dict[str, Any], *, sample: int, attempts: int
    ) -> Parsed[T]:
        """Ask until the answer parses, showing the model what was wrong. Each attempt has its own store key."""
        asked: Sequence[Message] = messages
        calls: list[str] = []
        reason = detail = ""
        for attempt in range(attempts):
            answer = await self._asker(_chat(asked, **how), sample=sample, attempt=attempt)
            calls.append(answer.key)
            if answer.finish == "length":
                reason, detail, told = "truncated answer", answer.text[-SHOWN_ANSWER:], TRUNCATED
                self._counts["truncated"] += 1
            else:
                try:
                    return Parsed(parse(answer.text), answer, tuple(calls))
                except ValueError as error:
                    reason, detail, told = "invalid answer", str(error), INVALID.format(problem=error)
                    self._counts["invalid"] += 1
            log(reason, role=self.role, request=answer.key, detail=detail, asked=attempt + 1)
            bad = answer.text[:SHOWN_ANSWER].strip() or "…"
            asked = [*messages, Message(role="assistant", content=bad), Message(role="user", content=told)]
        raise Reject(reason, detail)


def _chat(messages: Sequence[Message], **how: Any) -> Request:
    return Request(messages=tuple({"role": m.role, "content": m.content} for m in messages), **how)
