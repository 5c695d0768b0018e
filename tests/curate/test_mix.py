"""Mixing by tokens: shares hold, the draw is seeded, nothing that is held out is touched."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gristmill.core.errors import InputError
from gristmill.core.records import Message, Origin, Sample
from gristmill.curate.review.mix import run, tokens_of
from gristmill.curate.review.stages import MixConfig
from gristmill.models.counter import token_counter

COUNT = token_counter("smollm2-135m-instruct", Path())


def sample(n: int, kind: str = "qa", length: int = 5, **more: Any) -> Sample:
    messages = (
        Message(role="user", content=f"Which mill has number {n}?"),
        Message(role="assistant", content=" ".join(["mill"] * length), train=True),
    )
    return Sample(form="chat", kind=kind, messages=messages, parents=(f"{kind} {n}",), **more)


def mix(world: Any, pool: list[Sample], *, seed: int = 7, warned: list[str] | None = None, **config: Any) -> Any:
    ctx = world.context(seed=seed)
    if warned is not None:
        ctx.warn = warned.append
    found = world.outcome(run(MixConfig(kind="curate.mix", **config), pool, ctx))
    found.tokens = Counter()
    for each in found.kept:
        found.tokens[each.kind] += tokens_of(each, COUNT)
    return found


POOL = [sample(n) for n in range(60)] + [sample(n, "cloze", 20) for n in range(40)]


def test_shares_are_of_tokens(world: Any) -> None:
    found = mix(world, POOL, shares={"qa": 1, "cloze": 3})
    assert found.tokens["cloze"] / found.tokens.total() == pytest.approx(0.75, abs=0.03)
    assert {drop.reason for drop in found.dropped} == {"over its group's share in the mix"}
    assert len(found.kept) + len(found.dropped) == len(POOL)
    assert [s.id for s in found.kept] == [s.id for s in POOL if s in found.kept]


def test_all_groups_alike_when_no_share_is_said(world: Any) -> None:
    found = mix(world, POOL)
    assert found.tokens["qa"] == pytest.approx(found.tokens["cloze"], rel=0.05)
    assert sum(s.kind == "qa" for s in found.kept) == 60  # the scarcest stays whole


def test_a_size_in_tokens_and_what_is_short_of_it(world: Any) -> None:
    found = mix(world, POOL, tokens=400)
    assert 340 < found.tokens.total() <= 400
    warned: list[str] = []
    less = mix(world, POOL, tokens=10**6, warned=warned)
    assert len(warned) == 1 and "tokens of qa" in warned[0] and less.tokens == mix(world, POOL).tokens


def test_the_draw_is_of_the_seed_and_not_of_the_order(world: Any) -> None:
    ids = {s.id for s in mix(world, POOL, tokens=400).kept}
    assert {s.id for s in mix(world, POOL[::-1], tokens=400).kept} == ids
    assert {s.id for s in mix(world, POOL, tokens=400, seed=8).kept} != ids


def test_held_out_samples_go_through_and_count_for_nothing(world: Any) -> None:
    held = [sample(n, "qa", 50, marks={"split": "test"}) for n in range(5)]
    found = mix(world, [*held, *POOL], tokens=400)
    assert found.kept[:5] == held and {s.id for s in found.kept[5:]} == {
        s.id for s in mix(world, POOL, tokens=400).kept
    }


def test_groups_by_what_is_known_of_a_sample(world: Any) -> None:
    def of(n: int, stage: str, tier: str | None) -> Sample:
        return sample(n, marks={"tier": tier} if tier else {}, origin=Origin(stage=stage, model="w" if n % 2 else None))

    pool = [of(n, "one" if n < 20 else "two", "good" if n < 10 else None) for n in range(40)]
    for by, shares in (
        ({"by": "stage"}, {"one": 1, "two": 1}),
        ({"by": "mark", "mark": "tier"}, {"good": 1, "none": 1}),
        ({"by": "model"}, {"w": 1, "none": 1}),
        ({"by": "form"}, {"chat": 1}),
        ({"by": "language"}, {"en": 1}),
    ):
        assert mix(world, pool, shares=shares, **by).kept, by
    found = mix(world, pool, by="stage", shares={"one": 1})
    assert [d.reason for d in found.dropped] == ["its group has no share in the mix"] * 20


def test_what_cannot_be_mixed_is_an_error(world: Any) -> None:
    with pytest.raises(InputError, match="no training sample belongs to poems"):
        mix(world, POOL, shares={"qa": 1, "poems": 1})
    with pytest.raises(InputError, match="no training sample to mix"):
        mix(world, [])
    for wrong in ({"by": "mark"}, {"mark": "tier"}, {"shares": {}}, {"shares": {"qa": 0}}, {"tokens": 0}):
        with pytest.raises(ValidationError):
            MixConfig.model_validate({"kind": "curate.mix", **wrong})


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=15), st.lists(st.integers(1, 30), min_size=1, max_size=15),
       st.floats(0.1, 10), st.integers(0, 3))  # fmt: skip
def test_no_group_is_over_its_share(world: Any, qa: list[int], cloze: list[int], weight: float, seed: int) -> None:
    pool = [sample(n, "qa", length) for n, length in enumerate(qa)]
    pool += [sample(n, "cloze", length) for n, length in enumerate(cloze)]
    found = mix(world, pool, shares={"qa": weight, "cloze": 1}, seed=seed)
    there: Counter[str] = Counter()
    for each in pool:
        there[each.kind] += tokens_of(each, COUNT)
    total = min(there["qa"] / (weight / (weight + 1)), there["cloze"] * (weight + 1))
    for kind, share in (("qa", weight / (weight + 1)), ("cloze", 1 / (weight + 1))):
        taken = [s for s in found.kept if s.kind == kind]
        assert taken and (found.tokens[kind] <= total * share + 1e-3 or len(taken) == 1)
