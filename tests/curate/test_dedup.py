"""Duplicates: against an exact greedy search on small sets, and on planted pairs."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.curate.dedup import run
from gristmill.curate.likeness import bands_for
from gristmill.curate.stages import DedupConfig
from gristmill.curate.words import plain

CONFIG = DedupConfig(kind="curate.dedup")
VOCABULARY = [
    a + b + c for a in ("ba", "ke", "li", "mo", "ru") for b in ("da", "fe", "gi", "no") for c in ("s", "t", "x")
]


def shingles(text: str, size: int) -> set[str]:
    """The definition: every run of so many words; a shorter text is one."""
    tokens = text.split(" ")
    return {" ".join(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1))}


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


def dedup(world: Any, samples: list[Any], **config: Any) -> Any:
    return world.outcome(run(CONFIG.model_copy(update=config), samples, world.context()))


def texts(world: Any, written: list[str]) -> list[Any]:
    """Samples that differ in what they come from, so that equal texts are different records."""
    chunk = world.chunk("The mill is old.")
    return [world.text(text, chunk, parents=(f"parent {i}",)) for i, text in enumerate(written)]


def greedy(written: list[str], threshold: float, size: int) -> list[int]:
    """The definition: keep what is alike to nothing that was kept before it."""
    kept: list[int] = []
    for i, text in enumerate(written):
        mine = shingles(plain(text), size)
        if all(jaccard(mine, shingles(plain(written[j]), size)) < threshold for j in kept):
            kept.append(i)
    return kept


@st.composite
def corpora(draw: st.DrawFn) -> list[str]:
    rng = random.Random(draw(st.integers(0, 10**6)))
    written = []
    for _ in range(draw(st.integers(1, 25))):
        if written and rng.random() < 0.6:
            tokens = rng.choice(written).split()
            for _ in range(rng.randint(0, 3)):
                tokens[rng.randrange(len(tokens))] = rng.choice(VOCABULARY)
        else:
            tokens = rng.choices(VOCABULARY, k=rng.randint(1, 50))
        written.append(" ".join(tokens))
    return written


@settings(max_examples=150, deadline=None)
@given(corpora(), st.sampled_from([0.6, 0.8, 0.9]), st.sampled_from([1, 3]))
def test_agrees_with_exact_search(world: Any, written: list[str], threshold: float, size: int) -> None:
    pool = texts(world, written)
    found = dedup(world, pool, threshold=threshold, shingle=size)
    assert [record.id for record in found.kept] == [pool[i].id for i in greedy(written, threshold, size)]
    assert len(found.kept) + len(found.dropped) == len(pool)


def test_recall_at_planted_pairs(world: Any) -> None:
    rng = random.Random(3)
    written, planted = [], 0
    for _ in range(1500):
        tokens = rng.choices(VOCABULARY, k=40)
        other = [*tokens]
        other[rng.randrange(40)] = "changed"
        written += [" ".join(tokens), " ".join(other)]
        planted += jaccard(shingles(plain(written[-1]), 3), shingles(plain(written[-2]), 3)) >= 0.8
    found = dedup(world, texts(world, written))
    assert planted > 1000
    assert planted * 0.99 <= len(found.dropped) <= planted


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_find_pairs_at_the_threshold(threshold: float) -> None:
    rows = 128 // bands_for(threshold)
    assert 1 - (1 - threshold**rows) ** (128 // rows) >= 0.999 or rows == 1


def test_exact_duplicates_name_the_first(world: Any) -> None:
    pool = texts(world, ["The mill is old.", "the  MILL is old", "The mill is new."])
    found = dedup(world, pool, near=False)
    assert [record.id for record in found.kept] == [pool[0].id, pool[2].id]
    assert [(d.reason, d.detail) for d in found.dropped] == [("exact duplicate", f"of {pool[0].id}")]


PUMP = "The pump of the lower lock was set to {} by the keeper before the long winter of the great flood began."


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        ("-5 degrees", "5 degrees", False),
        ("It speaks C.", "It speaks C++.", False),
        ("x = a + b", "x = a - b", False),
        ("if depth >= 3", "if depth < 3", False),
        ("if a == b", "if a != b", False),
        ("at a rate of 5 %", "at a rate of 5", False),
        ("It is \U0001f600", "It is \U0001f621", False),
        ("It lay at \u22125 then.", "It lay at -5 then.", True),
        ("from 1914-1918", "from 1914 \u2013 1918", True),
        ("**the** best well-known *one*", "the best well known one", True),
        ("# Dues\n\n- boats\n- ships\n\n* * *\n> so it is", "Dues boats ships so it is", True),
    ],
)
def test_a_sign_that_says_something_makes_another_text(world: Any, one: str, other: str, merged: bool) -> None:
    for form in ("{}", PUMP):
        found = dedup(world, texts(world, [form.format(one), form.format(other)]))
        assert len(found.dropped) == merged, form


def test_the_same_record_twice_is_one(world: Any) -> None:
    (sample,) = texts(world, ["The mill is old."])
    found = dedup(world, [sample, sample])
    assert (len(found.kept), len(found.dropped)) == (1, 1)
    assert found.dropped[0].reason == "exact duplicate"


LONG = "Which of the many people who lived by the river in those days built the old mill that stands near the bridge"


@pytest.mark.parametrize(
    ("one", "other", "merged"),
    [
        ((f"{LONG}?", "Anna"), (f"{LONG} now?", "Anna"), True),
        ((f"{LONG}?", "Anna"), (f"{LONG}?", "Bert"), False),
        ((f"{LONG} of Kolm?", "Anna"), (f"{LONG} of Varn?", "Anna"), False),
        ((f"{LONG} in 1720?", "Anna"), (f"{LONG} in 1721?", "Anna"), False),
        ((f"{LONG}?", "It was Anna."), (f"{LONG}?", "it was anna"), True),
        (("Wer baute die Mühle?", "Anna"), ("Wer baute die Muhle?", "Anna"), True),
        (("Who built it?", "Anna"), ("Who built it? Anna", "Bert"), False),
        (("Is it so? yes", "no"), ("Is it so?", "yes no"), False),
    ],
)
def test_chats_are_compared_with_their_answers(world: Any, one: Any, other: Any, merged: bool) -> None:
    chunk = world.chunk("The mill is old.")
    pool = [world.qa(*one, chunk), world.qa(*other, chunk, parents=("other",))]
    found = dedup(world, pool)
    assert len(found.kept) == (1 if merged else 2)
    assert all(pool[0].id in drop.detail for drop in found.dropped)


@st.composite
def chats(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Questions after few templates, with numbers, names and small changes; answers short, long and nearly alike."""
    rng = random.Random(draw(st.integers(0, 10**6)))
    templates = [rng.choices(VOCABULARY, k=rng.randint(3, 40)) for _ in range(2)]
    answers = [rng.choices(VOCABULARY, k=k) for k in (1, 12, 13, 60)]
    made = []
    for _ in range(draw(st.integers(2, 20))):
        asked, said = [*rng.choice(templates)], [*rng.choice(answers)]
        for tokens in (asked, said):
            if rng.random() < 0.3:
                tokens[rng.randrange(len(tokens))] = rng.choice(VOCABULARY)
        asked.insert(1, rng.choice(["7", "8", "Kolm", "Varn", "x"]))
        made.append((" ".join(asked), " ".join(said)))
    return made


def same_meaning(one: tuple[str, str], other: tuple[str, str], size: int) -> bool:
    """The definition for chats like those above, a pair at a time."""
    (asked, said), (asked_too, said_too) = one, other
    if re.findall(r"\d|[A-Z]\w+", asked) != re.findall(r"\d|[A-Z]\w+", asked_too):
        return False
    if min(len(said.split()), len(said_too.split())) <= 12:
        return said == said_too
    return jaccard(shingles(said, size), shingles(said_too, size)) >= 0.8


@settings(max_examples=150, deadline=None)
@given(chats(), st.sampled_from([1, 3]))
def test_chats_agree_with_exact_search(world: Any, written: list[tuple[str, str]], size: int) -> None:
    chunk = world.chunk("The mill is old.")
    pool = [world.qa(*chat, chunk, parents=(f"parent {i}",)) for i, chat in enumerate(written)]
    kept: list[int] = []
    for i, chat in enumerate(written):
        mine = shingles(plain("\n".join(chat)), size)
        if not any(
            jaccard(mine, shingles(plain("\n".join(written[j])), size)) >= 0.8 and same_meaning(chat, written[j], size)
            for j in kept
        ):
            kept.append(i)
    assert [record.id for record in dedup(world, pool, shingle=size).kept] == [pool[i].id for i in kept]


def test_questions_after_one_template_cost_no_more_than_others(world: Any) -> None:
    chunk = world.chunk("The mill is old.")
    pool = [world.qa(f"{LONG} with item number {n}?", f"{n % 7} Nm", chunk) for n in range(4000)]
    began = time.process_time()
    assert len(dedup(world, pool).kept) == 4000
    assert time.process_time() - began < 5  # comparing every pair takes most of a minute


def test_a_chat_and_a_text_are_never_the_same(world: Any) -> None:
    chunk = world.chunk("The mill is old.")
    pool = [world.qa("Who built the old mill by the river?", "Anna", chunk)]
    pool.append(world.text("Who built the old mill by the river? Anna", chunk))
    assert len(dedup(world, pool).kept) == 2


def test_nothing_in_nothing_out(world: Any) -> None:
    assert dedup(world, []).kept == []
