"""What a stage sees of a model: one async protocol. How it is asked, kept and paid for is `gristmill.llm`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from pydantic import BaseModel

from gristmill.core.records import Message

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Usage:
    """Tokens as the provider's response counts them. `known` is false where the response said nothing."""

    input: int = 0
    output: int = 0
    known: bool = True
    cached: int = 0  # part of the input that the provider's prompt cache served
    reasoning: int = 0  # part of the output that the model thought and did not say
    written: int = 0  # part of the input that was put into that cache, where that has a price of its own


@dataclass(frozen=True)
class Answer:
    """One durable answer. `key` is its place in the store; `model` the identity of the model that really answered: a
    role's first choice, or the one that stood in for it."""

    text: str
    finish: str  # stop | length
    usage: Usage
    key: str
    model: str
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    raw: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """An answer that passed its parser, and every answer that was asked for on the way (invalid ones included)."""

    value: T
    answer: Answer
    calls: tuple[str, ...]


class Model(Protocol):
    """A model bound to a role. `identity` names the weights, never a key or a local port.

    `context` is what a local model holds of prompt and answer together, in tokens; None behind an address, where the
    server decides. `grammar` (GBNF) binds what a local model may write; a provider that cannot do that raises
    ProviderError.
    """

    role: str
    identity: str
    context: int | None

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
        """One answer, whatever its finish. For exams; generating stages use `ask` or `structured`.

        A local model computes it anew, without its prompt cache: what was asked before must not show in the answer.
        """
        ...

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
        """Ask until `parse` accepts. A ValueError of `parse` is shown to the model in the next attempt; after a
        truncated answer it is asked to be shorter. Ends in Reject("invalid answer" | "truncated answer")."""
        ...

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
        """`ask`, the answer constrained to the JSON schema of a pydantic model; strings and arrays must be bounded."""
        ...

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
        """Continue a text or token ids, with token ids and log-probabilities of what was generated."""
        ...

    async def embed(self, texts: Sequence[str]) -> list[list[float]]: ...
