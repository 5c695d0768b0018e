"""A subset is drawn by seed and text: not by order, and not by what else is there."""

from __future__ import annotations

import random

import pytest
from pydantic import ValidationError

from gristmill.core.records import Chunk
from gristmill.ingest import subset
from gristmill.ingest.stages import SubsetConfig


class Context:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.counts: dict[str, float] = {}

    def count(self, **amounts: float) -> None:
        self.counts |= amounts


def chunk(number: int, path: str = "a.md", parent: str = "d") -> Chunk:
    text = f"Mill number {number} of {path}."
    return Chunk(
        path=path, title="Mills", text=text, start=0, end=len(text), tokens=8, language="en", parents=(parent,)
    )


def drawn(pool: list[Chunk], chunks: int = 20, seed: int = 3) -> list[Chunk]:
    context = Context(seed)
    found = list(subset.run(SubsetConfig(kind="ingest.subset", chunks=chunks), pool, context))  # type: ignore[arg-type]
    assert context.counts == {"left_out": len(pool) - len(found)}
    return found  # type: ignore[return-value]


POOL = [chunk(n) for n in range(200)]


def test_as_many_as_asked_for_in_input_order() -> None:
    found = drawn(POOL)
    assert len(found) == 20 and found == [c for c in POOL if c in found]
    assert drawn(POOL, chunks=500) == POOL


def test_order_does_not_matter_and_the_seed_does() -> None:
    shuffled = random.Random(1).sample(POOL, len(POOL))
    assert {c.id for c in drawn(shuffled)} == {c.id for c in drawn(POOL)}
    assert {c.id for c in drawn(POOL, seed=4)} != {c.id for c in drawn(POOL)}


def test_one_more_file_brings_in_only_its_own_and_an_edit_changes_only_what_it_touches() -> None:
    before = {c.text for c in drawn(POOL)}
    after = {c.text for c in drawn([*(chunk(n, "0.md") for n in range(100)), *POOL])}
    assert after - before and all("0.md" in text for text in after - before)
    edited = [chunk(n, parent="another version") for n in range(200)]  # every id is another, every text the same
    assert {c.text for c in drawn(edited)} == before


def test_none_is_not_a_subset() -> None:
    with pytest.raises(ValidationError):
        SubsetConfig(kind="ingest.subset", chunks=0)
