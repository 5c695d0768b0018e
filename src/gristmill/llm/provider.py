"""The wire level: one request, one attempt, one reply. Whoever can `send` is a provider; all else is `client`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from gristmill.core.ask import Usage
from gristmill.core.errors import ProviderError

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked: messages (a chat), a prompt to go on from, or texts to embed."""

    messages: tuple[dict[str, str], ...] = ()
    prompt: str | tuple[int, ...] | None = None
    texts: tuple[str, ...] = ()
    max_tokens: int = 0
    temperature: float = 0.0
    stop: tuple[str, ...] = ()
    schema: Schema | None = None
    schema_name: str = ""
    grammar: str | None = None
    seed: int | None = None  # sent where sampling is random
    fresh: bool = False  # a local model computes all of it anew, whatever its slot holds of the last prompt


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, in our words. `finish` is stop or length; anything else is an error."""

    text: str
    finish: str
    usage: Usage
    reasoning: str = ""
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()


class Provider(Protocol):
    identity: str
    concurrency: int
    attempts: int

    @property
    def context(self) -> int | None:
        """As in core.ask.Model."""
        ...

    async def send(self, request: Request) -> Reply:
        """One attempt. Raises Unanswered where another attempt may help, any other ProviderError where none will."""
        ...

    def input_bound(self, request: Request) -> int:
        """No fewer tokens than this request will be charged for as input."""
        ...

    async def close(self) -> None: ...


class Unanswered(ProviderError):
    """An attempt that failed in a way that passes. `charged`: nobody knows whether it was paid for."""

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
        charged: bool = False,
    ) -> None:
        super().__init__(message, hint, transient=True, status=status)
        self.retry_after = retry_after
        self.charged = charged


def split_reasoning(text: str) -> tuple[str, str]:
    """The answer and the thoughts before it, for models that write both into one text."""
    opened = text.lstrip()
    if not opened.startswith("<think>"):
        return text, ""
    thoughts, closed, answer = opened.removeprefix("<think>").partition("</think>")
    return (answer.lstrip(), thoughts.strip()) if closed else ("", thoughts.strip())
