"""What a provider's batch interface is to the rest: hand in, find again, look, read results. One `Desk` for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from gristmill.core.errors import ProviderError
from gristmill.llm.provider import Reply, Request


@dataclass(frozen=True, slots=True)
class Line:
    """One request as it stands in a batch, without its name."""

    place: str
    body: bytes
    weight: int = 1  # what it counts for in the provider's limit


@dataclass(frozen=True, slots=True)
class State:
    """What the provider says of a batch. `failed`: it was turned down as a whole, and nothing of it was paid for;
    `bad`: the lines, counted from one, that were the reason. `results`: where they are, in the provider's words."""

    ended: bool
    failed: ProviderError | None = None
    bad: dict[int, ProviderError] = field(default_factory=dict)
    gone: bool = False  # the provider knows no such batch, or has thrown its results away
    results: tuple[str, ...] = ()


class Undecided(Exception):
    """Whether a batch is the one that is looked for shows only when it has ended."""


class Desk(Protocol):
    """A provider's batch interface. Every method may raise what `Provider.send` may."""

    most: int  # weight of one batch
    most_bytes: int

    def line(self, request: Request) -> Line:
        """A request as it stands in a batch; ProviderError if it cannot."""
        ...

    async def submit(self, tag: str, place: str, lines: list[tuple[str, bytes]]) -> str:
        """Hand in named bodies; the batch's id. Whoever hears Unanswered does not know whether it was taken."""
        ...

    async def find(self, tag: str, *, since: float, count: int, known: set[str]) -> str | None:
        """The id of the batch with this tag, handed in after `since`, if there is one."""
        ...

    async def look(self, id: str) -> State: ...

    def results(self, state: State) -> AsyncIterator[tuple[str, Reply | ProviderError]]:
        """What became of each line, by its name, in any order. Read as it arrives, never held as a whole."""
        ...
