"""Which sentences of a chunk state anything: what a writer is asked about, and what coverage is counted over."""

from __future__ import annotations

import re

from pydantic import TypeAdapter

from gristmill.core.records import Chunk, Span

SHORTEST = 12
"""Characters of something that states anything."""

MARKUP = " \t#*_>|-"
_STATES = re.compile(r"\w\W+\w|[^\x00-\u024f]")


def statements(chunk: Chunk) -> list[Span]:
    """The sentences of a chunk, in characters of its text, without titles, headings and fragments."""
    titles = {step.casefold().strip() for step in (chunk.title, *chunk.headings)}
    return [(start, end) for start, end in chunk.sentences if _states(chunk.text[start:end].strip(MARKUP), titles)]


def _states(bare: str, titles: set[str]) -> bool:
    return len(bare) >= SHORTEST and bare.casefold() not in titles and _STATES.search(bare) is not None


_SPANS = TypeAdapter(set[Span])
GAPS = "gaps"
"""Mark of a chunk of which only some sentences are to be written about: their spans."""


def wanted_of(chunk: Chunk) -> set[Span] | None:
    """The sentences that a chunk's mark asks for; None where it has no such mark."""
    spans = chunk.marks.get(GAPS)
    return None if spans is None else _SPANS.validate_python(spans)
