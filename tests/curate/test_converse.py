"""Conversations: nothing lost, nothing twice, neighbours from different places."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.core.records import Message
from gristmill.curate.converse import run
from gristmill.curate.stages import ConverseConfig


def converse(world: Any, pool: list[Any], ctx: Any, turns: int = 6) -> list[Any]:
    return world.outcome(run(ConverseConfig(kind="curate.converse", turns=turns), pool, ctx)).kept


def corpus(world: Any, sizes: list[int], language: str = "en") -> tuple[list[Any], Any]:
    chunks = [world.chunk(f"Place {i} is here.", path=f"{i}.md", language=language) for i in range(len(sizes))]
    pool = [
        world.qa(f"Question {n} on {i}?", f"answer {n}", chunk, marks={"split": "train"})
        for i, (chunk, size) in enumerate(zip(chunks, sizes, strict=True))
        for n in range(size)
    ]
    return pool, world.context(chunks)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(2, 8), st.randoms(use_true_random=False))
def test_every_sample_once_whatever_the_order(world: Any, sizes: list[int], turns: int, rng: Any) -> None:
    pool, ctx = corpus(world, sizes)
    done = converse(world, pool, ctx, turns)
    members = [name for s in done for name in (s.parents if s.kind == "conversation" else (s.id,))]
    assert sorted(members) == sorted(s.id for s in pool)
    assert all(len(s.messages) <= 2 * turns for s in done)
    assert len(done) == -(-len(pool) // turns)
    assert [s.id for s in converse(world, rng.sample(pool, len(pool)), ctx, turns)] == [s.id for s in done]


def test_neighbours_come_from_different_places(world: Any) -> None:
    pool, ctx = corpus(world, [5, 5, 5, 5])
    by_id = {s.id: s for s in pool}
    for conversation in converse(world, pool, ctx, 6):
        places = [by_id[name].quotes[0].path for name in conversation.parents]
        assert all(one != other for one, other in pairwise(places))
        assert len(set(places)) == min(4, len(places))


def test_a_conversation_is_the_union_of_its_members(world: Any) -> None:
    pool, ctx = corpus(world, [1, 1, 1])
    (done,) = converse(world, pool, ctx)
    by_id = {s.id: s for s in pool}
    members = [by_id[name] for name in done.parents]
    assert done.messages == tuple(m for s in members for m in s.messages)
    assert set(done.quotes) == {q for s in pool for q in s.quotes}
    assert (done.marks, done.kind, done.origin.stage) == ({"split": "train"}, "conversation", "stage")


def test_all_else_passes_through(world: Any) -> None:
    chunk = world.chunk("The mill is old.")
    system = Message(role="system", content="Be brief.")
    others = [
        world.text("The mill is old.", chunk, marks={"split": "train"}),
        world.qa("How old?", "old", chunk, marks={"split": "test"}),
        world.qa("How very old?", "old", chunk, marks={"split": "validation"}),
    ]
    asked = world.qa("How is it?", "old", chunk)
    others.append(asked.model_copy(update={"messages": (system, *asked.messages)}))
    pool, ctx = corpus(world, [1])
    assert converse(world, [*others, *pool], ctx) == [*others, *pool]


def test_languages_stay_apart(world: Any) -> None:
    english, ctx = corpus(world, [2])
    german, more = corpus(world, [2], "de")
    ctx.known |= more.known
    assert sorted(s.language for s in converse(world, [*english, *german], ctx)) == ["de", "en"]
