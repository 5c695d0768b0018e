"""Preferences, ratings and labelled texts in this room: split, compared, filtered and grounded like the other forms."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from gristmill.core.errors import InputError
from gristmill.core.records import Message, Sample
from gristmill.curate import converse, dedup, filter, ground, split
from gristmill.curate.stages import ConverseConfig, DedupConfig, FilterConfig, GroundConfig, SplitConfig


def user(text: str) -> Message:
    return Message(role="user", content=text)


def answer(text: str) -> Message:
    return Message(role="assistant", content=text, train=True)


def pair(asked: str, good: str, bad: str, **more: Any) -> Sample:
    sides = {"chosen": (answer(good),), "rejected": (answer(bad),)}
    return Sample(form="preference", kind="qa", messages=(user(asked),), **sides, **more)


def rated(asked: str, said: str, desirable: bool, **more: Any) -> Sample:
    return Sample(form="rating", kind="qa", messages=(user(asked), answer(said)), desirable=desirable, **more)


def labelled(text: str, label: str, **more: Any) -> Sample:
    return Sample(form="labelled", kind="letter", text=text, label=label, **more)


def pool(count: int, parent: str = "f0") -> list[Sample]:
    out: list[Sample] = []
    for i in range(count):
        parents = {"parents": (parent,)}
        out.append(pair(f"How high is tower {i}?", f"It is {i} feet.", "Nobody knows.", **parents))
        out.append(rated(f"How deep is well {i}?", f"It is {i} feet.", bool(i % 2), **parents))
        out.append(labelled(f"Letter {i} about the harbour.", "harbour", **parents))
        out.append(Sample(form="text", kind="passage", text=f"Orvale has {i} mills.", **parents))
    return out


def marks(world: Any, given: list[Sample], **config: Any) -> dict[str, str]:
    done = split.run(SplitConfig(kind="curate.split", **config), given, world.context())
    return {str(s.content()): str(s.marks["split"]) for s in done if isinstance(s, Sample)}


@pytest.mark.parametrize("by", ["document", "sample"])
def test_every_form_is_held_out_whatever_its_place_and_file(world: Any, by: str) -> None:
    """The same rows in another order, from a file of another name, fall into the same splits."""
    shares = {"test": 0.2, "validation": 0.1}
    first = marks(world, pool(100), by=by, **shares)
    shuffled = pool(100, parent="f1")
    random.Random(3).shuffle(shuffled)
    assert marks(world, shuffled, by=by, **shares) == first
    counts = Counter(first.values())
    assert 60 <= counts["test"] <= 100 and 25 <= counts["validation"] <= 55
    held = {text.partition("'kind'")[0] for text, mark in first.items() if mark != "train"}
    assert len(held) == 4  # of each form


def test_samples_that_ask_the_same_are_never_torn_apart(world: Any) -> None:
    asked = [pair(f"How high is tower {i}?", f"It is {way} feet.", "No.") for i in range(40) for way in range(3)]
    for by in ("sample", "document"):
        sides: dict[str, set[str]] = {}
        for sample in split.run(SplitConfig(kind="curate.split", by=by, test=0.3), asked, world.context()):
            assert isinstance(sample, Sample)
            sides.setdefault(sample.question, set()).add(str(sample.marks["split"]))
        assert all(len(side) == 1 for side in sides.values())
        assert Counter(min(side) for side in sides.values()).keys() == {"test", "train"}


def test_by_sample_more_data_moves_nothing_and_nothing_is_held_in_memory(world: Any) -> None:
    few, many = marks(world, pool(50), by="sample", test=0.2), marks(world, pool(100), by="sample", test=0.2)
    assert few.items() <= many.items()
    given = iter(pool(3))
    made = iter(split.run(SplitConfig(kind="curate.split", by="sample", test=0.2), given, world.context()))
    next(iter(made))
    assert sum(1 for _ in given) == 11  # one was read for the one that was given
    with pytest.raises(InputError, match="no sample fell to test"):
        marks(world, pool(1)[:1], by="sample", test=0.01)


def test_another_verdict_is_another_sample(world: Any) -> None:
    said = "The tower of Orvale was built by the people of the town in the year 1720 and stands there still."
    kept = [
        pair("When was it built?", said, "Nobody knows that any more."),
        pair("When was it built?", "Nobody knows that any more.", said),
        rated("When was it built?", said, True),
        rated("When was it built?", said, False),
        labelled(said, "tower"),
        labelled(said, "town"),
        labelled(said, "town", spans=((4, 9),)),
        labelled(said, "town", spans=((13, 19),)),
    ]
    same = [
        pair("When was it built?", f"{said} ", "Nobody knows that any more."),
        rated("When was it  built?", said, False),
    ]
    done = world.outcome(dedup.run(DedupConfig(kind="curate.dedup"), [*kept, *same], world.context()))
    assert done.kept == kept
    assert [(d.reason, d.detail) for d in done.dropped] == [
        ("exact duplicate", f"of {kept[0].id}"),
        ("exact duplicate", f"of {kept[3].id}"),
    ]


def test_what_is_bad_on_purpose_is_not_held_against_a_sample(world: Any) -> None:
    chunk = world.chunk("The tower of Orvale was built in 1720.")
    bad = "```json loop loop loop loop loop loop loop loop loop loop 1999"
    about: dict[str, Any] = {"quotes": (world.quote(chunk),), "parents": (chunk.id,)}
    asked = "When was the tower of Orvale built?"
    ctx = world.context([chunk])
    checks = [(filter.run, FilterConfig(kind="curate.filter")), (ground.run, GroundConfig(kind="curate.ground"))]
    for run, config in checks:
        for good in (pair(asked, "In 1720.", bad, **about), rated(asked, bad, False, **about)):
            assert world.step(run, config, good, ctx) == ""
        for wrong in (pair(asked, bad, "In 1720.", **about), rated(asked, bad, True, **about)):
            assert world.step(run, config, wrong, ctx) != ""
    letter = labelled("The tower was built in 1999.", "tower", parents=(chunk.id,))
    assert world.step(ground.run, checks[1][1], letter, ctx) == "number not in source"
    assert world.step(filter.run, checks[0][1], labelled("No.", "x"), ctx) == "text too short"


def test_only_chats_become_conversations(world: Any) -> None:
    given = [rated(f"How high is {i}?", "So high.", True) for i in range(4)]
    assert list(converse.run(ConverseConfig(kind="curate.converse"), given, world.context())) == given
