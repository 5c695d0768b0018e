"""The same in other words: kept is the first; numbers, names and short answers must agree."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from gristmill.core.errors import InputError
from gristmill.curate.duplicates.semantic import run
from gristmill.curate.duplicates.stages import SemanticConfig
from gristmill.retrieve import embed, packed

CONFIG = SemanticConfig(kind="curate.semantic")
SAME = [
    ("The festival takes place every summer in the market square.",
     "Every summer the festival is held in the market square."),
    ("The keeper opens the heavy gate for visitors each morning before breakfast.",
     "Each morning, before he has breakfast, the keeper opens the heavy gate so visitors can come in."),
    ("You can reset the device by holding the button for a while.",
     "Hold the button down for a while to reset the device."),
]  # fmt: skip
OTHER = [
    ("The festival takes place every summer in the market square.",
     "The market square is closed to cars every winter."),
    ("The keeper opens the heavy gate for visitors each morning before breakfast.",
     "The keeper closes the heavy gate for visitors each evening after supper."),
    ("The mill was built by the miller Anna.", "The mill was built by the miller Bert."),
    ("The mill was built in 1720.", "The mill was built in 1721."),
]  # fmt: skip


def sift(world: Any, pool: list[Any], **config: Any) -> Any:
    return world.outcome(run(CONFIG.model_copy(update=config), pool, world.context()))


def texts(world: Any, *written: str) -> list[Any]:
    chunk = world.chunk("The mill is old.")
    return [world.text(text, chunk, parents=(f"parent {at}",)) for at, text in enumerate(written)]


@pytest.mark.parametrize("pair", SAME)
def test_other_words_for_the_same_are_dropped(world: Any, pair: tuple[str, str]) -> None:
    pool = texts(world, *pair)
    found = sift(world, pool)
    assert found.kept == pool[:1]
    assert found.dropped[0].reason == "says the same" and pool[0].id in found.dropped[0].detail


@pytest.mark.parametrize("pair", OTHER)
def test_other_things_in_like_words_stay(world: Any, pair: tuple[str, str]) -> None:
    pool = texts(world, *pair)
    assert sift(world, pool).kept == pool


def test_questions_with_another_answer_stay(world: Any) -> None:
    chunk = world.chunk("The mill is old.")
    asked = ("Who built the old mill near the river?", "Who keeps the old mill near the river?")
    pool = [world.qa(asked[0], "the miller", chunk), world.qa(asked[1], "the baker", chunk)]
    assert sift(world, pool).kept == pool
    pool[1] = world.qa("Who was it that built the old mill near the river?", "The miller.", chunk)
    assert sift(world, pool).kept == pool[:1]


def test_agrees_with_a_search_of_every_pair(world: Any) -> None:
    rng = random.Random(5)
    words = [
        "mill",
        "wheel",
        "river",
        "oak",
        "gate",
        "keeper",
        "stone",
        "water",
        "old",
        "heavy",
        "turns",
        "stands",
        "opens",
        "every",
        "morning",
        "evening",
    ]
    pool = texts(world, *(" ".join(rng.choices(words, k=6)) for _ in range(700)))
    vectors = embed([sample.text for sample in pool]).astype(np.float16).astype(np.float32)
    kept: list[int] = []
    for at in range(len(pool)):
        if not len(kept) or (vectors[kept] @ vectors[at]).max() < 0.9:
            kept.append(at)
    assert 50 < len(kept) < 650
    assert sift(world, pool).kept == [pool[at] for at in kept]


def test_vectors_of_another_model_are_used_and_taken_off(world: Any) -> None:
    one, two, three = texts(world, "The mill is old.", "A wheel of oak.", "It stands by the river.")
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    pool = [s.marked(vector=packed(v), tier="a") for s, v in zip((one, two, three), vectors, strict=True)]
    found = sift(world, pool)
    assert [sample.id for sample in found.kept] == [one.id, three.id]
    assert all(sample.marks == {"tier": "a"} for sample in (*found.kept, found.dropped[0].record))
    with pytest.raises(InputError, match="some have none"):
        sift(world, [pool[0], two])


def test_nothing_in_nothing_out(world: Any) -> None:
    assert sift(world, []).kept == []
