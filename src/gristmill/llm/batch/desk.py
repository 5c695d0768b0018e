"""What a provider's batch interface is to the rest: hand in, find again, look, read results. One `Desk` for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from gristmill.core.errors import ProviderError
from gristmill.llm.batch.notes import Batch
from gristmill.llm.provider import Reply, Request, Unanswered, Unreached, Withheld
from gristmill.llm.providers.probe import Probe, Traits
from gristmill.llm.wire.failure import BadRequest
from gristmill.llm.wire.http import Wire

CLOCKS_DIFFER = 3600.0  # seconds by which a provider's clock may differ from that of the store


@dataclass(frozen=True, slots=True)
class Entry:
    """One request as it stands in a batch, without its name; `traits` is how it is asked."""

    request: Request
    traits: Traits
    place: str
    body: bytes
    weight: int  # what it counts for in the provider's limit


@dataclass(frozen=True, slots=True)
class State:
    """What the provider says of a batch. `failed`: it was turned down as a whole, and nothing of it was paid for;
    `bad`: the lines, counted from one, that were the reason. `results`: where they are, in the provider's words."""

    ended: bool
    failed: ProviderError | None = None
    bad: dict[int, ProviderError] = field(default_factory=dict)
    gone: bool = False  # the provider knows no such batch, or has thrown its results away
    results: tuple[str, ...] = ()


Outcome = dict[str, Any] | ProviderError
"""What became of a line: the body of its answer, as if it had been asked alone, or why there is none."""


class Undecided(Exception):
    """Whether a batch is the one that is looked for shows only when it has ended."""


class NotTaken(Unanswered):
    """A hand-in that broke off before the provider could have taken it."""


class Asked(Protocol):
    """A provider, as far as batches need it: what it would send, and how it reads what comes back."""

    wire: Wire

    @property
    def probe(self) -> Probe: ...

    def body(self, request: Request, traits: Traits | None = None) -> tuple[str, dict[str, Any]]: ...

    def read(self, request: Request, answer: dict[str, Any]) -> Reply: ...


class Desk(Protocol):
    """A provider's batch interface. Every method may raise what `Provider.send` may."""

    provider: Asked
    most: int  # weight of one batch
    most_bytes: int

    async def submit(self, batch: Batch, lines: list[tuple[str, bytes]]) -> str:
        """Hand in named bodies; the provider's id. `perhaps_taken` tells what an error leaves open."""
        ...

    async def find(self, batch: Batch, *, known: set[str]) -> str | None:
        """The id of a batch that was perhaps handed in, if it was; it is none of the known ones. Undecided: ask again
        later."""
        ...

    async def look(self, id: str) -> State: ...

    def results(self, state: State) -> AsyncIterator[tuple[str, Outcome]]:
        """What became of each line, by its name, in any order. Read as it arrives, never held as a whole."""
        ...


def perhaps_taken(error: ProviderError) -> bool:
    """Whether a hand-in that failed so may have made a batch: all but where nobody listened, or somebody refused."""
    return isinstance(error, Unanswered | Withheld) and not isinstance(error, Unreached | NotTaken)


def entry_of(provider: Asked, request: Request) -> Entry:
    """A request as it stands in a batch; ProviderError if it cannot."""
    traits = provider.probe.traits
    place, body = provider.body(request, traits)
    return Entry(request, traits, place, orjson.dumps(body), max(1, len(request.texts)))


def reply_of(provider: Asked, entry: Entry, outcome: Outcome) -> Reply | ProviderError:
    """An entry's reply, or why it has none. One that was refused because of how it was asked may be asked otherwise."""
    if isinstance(outcome, BadRequest) and provider.probe.refused(outcome, entry.traits, entry.request.schema_name):
        return Unanswered(outcome.message, status=outcome.status)
    if isinstance(outcome, ProviderError):
        return outcome
    try:
        return provider.read(entry.request, outcome)
    except ProviderError as error:
        return error
