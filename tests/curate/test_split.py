"""Splits: what is held out stays taught (by question), groups stay together, order never matters."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.core.errors import InputError
from gristmill.curate.split import run
from gristmill.curate.stages import SplitConfig
from gristmill.curate.words import plain


def split(world: Any, pool: list[Any], *, ctx: Any = None, **config: Any) -> list[Any]:
    return world.outcome(run(SplitConfig(kind="curate.split", **config), pool, ctx or world.context())).kept


def corpus(world: Any, facts: int, wordings: list[int], documents: int = 3) -> list[Any]:
    """`facts` facts over some documents, the i-th asked in wordings[i % n] ways, and one text per document."""
    pool = []
    for i in range(facts):
        path, sentence = f"{i % documents}.md", f"Thing number {i} is called name{i}."
        chunk = world.chunk(sentence, start=1000 * i, path=path)
        for way in range(wordings[i % len(wordings)]):
            pool.append(world.qa(f"Way {way}: what is thing {i} called?", f"name{i}", chunk))
    pool += [
        world.text(f"All of document {d}", world.chunk("x", path=f"{d}.md", start=10**6)) for d in range(documents)
    ]
    return pool


def marks(records: list[Any]) -> dict[str, str]:
    return {record.id: record.marks["split"] for record in records}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 25),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.sampled_from([0.05, 0.1, 0.4]),
    st.integers(0, 99),
)
def test_by_question_holds_out_wordings_whose_fact_stays_taught(
    world: Any, facts: int, wordings: list[int], share: float, seed: int
) -> None:
    pool = corpus(world, facts, wordings)
    ctx = world.context(seed=seed)
    try:
        done = split(world, pool, ctx=ctx, test=share)
    except InputError as error:
        assert all(n < 3 for n in wordings[:facts])
        assert "ways" in error.hint
        return
    assert [record.id for record in done] == [record.id for record in pool]
    taught = Counter((s.quotes, s.answer) for s in done if s.form == "chat" and s.marks["split"] == "train")
    asked = {plain(s.question) for s in done if s.form == "chat" and s.marks["split"] == "train"}
    held = [s for s in done if s.marks["split"] == "test"]
    assert all(taught[s.quotes, s.answer] >= 2 and plain(s.question) not in asked for s in held)
    wanted = max(1, round(share * sum(s.form == "chat" for s in pool)))
    possible = sum(max(0, wordings[i % len(wordings)] - 2) for i in range(facts))
    assert len(held) == min(wanted, possible)
    assert ctx.metrics == {"test_wanted": wanted, "test_held_out": len(held)}
    assert ctx.counts["test_short_of_share"] == wanted - len(held)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["question", "document", "fact"]), st.randoms(use_true_random=False))
def test_order_never_matters(world: Any, by: str, rng: random.Random) -> None:
    pool = corpus(world, 12, [4, 3], documents=5)
    shuffled = rng.sample(pool, len(pool))
    one, other = (split(world, order, by=by, test=0.2, validation=0.2) for order in (pool, shuffled))
    assert marks(one) == marks(other)
    assert set(marks(one).values()) == {"train", "test", "validation"}


@pytest.mark.parametrize("by", ["document", "fact"])
def test_groups_never_straddle(world: Any, by: str) -> None:
    done = split(world, corpus(world, 40, [3, 4, 5], documents=8), by=by, test=0.25, validation=0.25)
    groups = defaultdict(set)
    for sample in done:
        key = sample.quotes if by == "fact" else sample.quotes[0].path if sample.quotes else ""
        if sample.quotes:
            groups[key].add(sample.marks["split"])
    assert all(len(found) == 1 for found in groups.values())


def test_overlapping_quotes_are_one_fact(world: Any) -> None:
    chunk = world.chunk("One two three four. Five six.")
    parts = ["One two three", "three four", "Five six"]
    pool = [
        world.qa(f"What is part {i}?", f"part {i}", chunk, world.quote(chunk, part)) for i, part in enumerate(parts)
    ]
    for seed in range(8):
        done = split(world, pool, ctx=world.context(seed=seed), by="fact", test=0.34)
        assert done[0].marks == done[1].marks != done[2].marks


def test_a_sample_over_two_documents_joins_them(world: Any) -> None:
    one, two, three = (world.chunk("Old.", path=f"{name}.md") for name in "abc")
    pool = [world.qa("How is it?", str(i), chunk) for i, chunk in enumerate((one, two, three))]
    pool.append(world.qa("How are both?", "old", one, world.quote(one), world.quote(two)))
    for seed in range(8):
        done = split(world, pool, ctx=world.context(seed=seed), by="document", test=0.25)
        assert done[0].marks == done[1].marks == done[3].marks != done[2].marks


def test_seeds_differ(world: Any) -> None:
    pool = corpus(world, 30, [4])
    found = {str(marks(split(world, pool, ctx=world.context(seed=seed)))) for seed in range(4)}
    assert len(found) > 1


def test_only_the_kinds_asked_for_are_held_out(world: Any) -> None:
    chunk = world.chunk("The mill is old.")
    pool = [world.qa(f"How is the mill, way {i}?", "old", chunk, kind="qa" if i % 2 else "cloze") for i in range(8)]
    done = split(world, pool, test=0.5, kinds=["cloze"])
    assert {s.kind for s in done if s.marks["split"] == "test"} == {"cloze"}


@pytest.mark.parametrize("by", ["question", "document", "fact"])
def test_nothing_to_hold_out_is_an_error_that_helps(world: Any, by: str) -> None:
    pool = [world.qa("How is the mill?", "old", world.chunk("The mill is old."))]
    with pytest.raises(InputError, match="no sample can be held out for test") as caught:
        split(world, pool, by=by)
    assert "by:" in caught.value.hint
    assert marks(split(world, pool, by=by, test=0)) == {pool[0].id: "train"}


@pytest.mark.parametrize("by", ["sample", "document", "fact", "question"])
def test_a_variant_stands_where_its_original_stands(world: Any, by: str) -> None:
    """With other words than its original's, it would be drawn for itself."""
    originals = corpus(world, 12, [4], documents=1 if by == "question" else 12)
    if by in ("sample", "fact"):
        originals = [one.model_copy(update={"quotes": ()}) for one in originals]
    variants = [
        world.qa(f"{one.question} pelase", one.answer, world.chunk("x"), parents=(one.id,)).model_copy(
            update={"quotes": one.quotes, "marks": {"variant_of": one.id}}
        )
        for one in originals
        if one.form == "chat"
    ]
    done = marks(split(world, [*originals, *variants], ctx=world.context(originals), by=by, test=0.3))
    assert {done[each.id] for each in variants} == {"train", "test"}
    assert all(done[each.id] == done[each.marks["variant_of"]] for each in variants)
