"""Passages as a model is shown them, numbered: the same in training and wherever they are retrieved for an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gristmill.core.records import Chunk, Sample

MARK = "retrieval"
"""Of a sample with passages: `found` where one of them tells, `missed` where none does."""


def show(passages: Sequence[Chunk]) -> str:
    """`[1] path, title > heading` above each text. An answer cites a passage as `[1]`."""
    return "\n\n".join(f"[{n}] {_place(chunk)}\n{chunk.text.strip()}" for n, chunk in enumerate(passages, 1))


def cited(reply: str, number: int) -> str:
    return f"{reply} [{number}]"


def uncited(reply: str, sample: Sample) -> str:
    """What a reply claims: the number of the passage it cites, or the paths of what it rests on, is none of it."""
    if sample.marks.get(MARK) == "found":
        return re.sub(r" \[\d+\]$", "", reply)
    claimed, _, named = reply.rpartition(" (")
    paths = {quote.path for quote in sample.quotes}
    return claimed if claimed and {*named.removesuffix(")").split(", ")} <= paths and named.endswith(")") else reply


def _place(chunk: Chunk) -> str:
    steps = [step for step in (chunk.title, *chunk.headings) if step]
    return ", ".join([chunk.path, " > ".join(dict.fromkeys(steps))] if steps else [chunk.path])
