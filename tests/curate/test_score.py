"""Local scores: what each says of texts that are good and bad in one way, and the bounds on them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import ValidationError

from gristmill.core.errors import Reject
from gristmill.curate.quality.score import run
from gristmill.curate.quality.score_config import ScoreConfig
from gristmill.curate.quality.scores import repetition, scores, variety

GOOD = "The mill stands by the river. Its wheel is made of oak, and it turns when the water is high enough in spring."
STATUTE = (
    "Notwithstanding antecedent stipulations, proprietors necessarily indemnify municipal administrations "
    "whenever extraordinary circumstances materially compromise infrastructure."
)


def test_a_plain_text_by_hand() -> None:
    found = scores("The old mill stands. It grinds barley.", "en")
    assert (found["words"], found["sentence"]) == (7, 3.5)
    assert found["lix"] == 3.5  # no word is longer than six letters
    assert found["function"] == pytest.approx(2 / 7, abs=1e-3)  # the, it
    assert (found["repetition"], found["variety"], found["symbols"]) == (0, 1, 0)


@pytest.mark.parametrize(
    ("score", "low", "high"),
    [
        ("lix", GOOD, STATUTE),
        ("repetition", GOOD, "the mill is old and " * 20),
        ("variety", "mill wheel " * 60, GOOD),
        ("symbols", GOOD, "{#} => [|] mill <%> == [|]"),
        ("capitals", GOOD, GOOD.upper()),
        ("function", "mill wheel river oak gate stone 1720", GOOD),
        ("language", "Die Mühle steht seit langer Zeit am Fluss und ihr Rad ist aus Eiche gemacht.", GOOD),
    ],
)
def test_each_score_tells_what_it_is_named_after(score: str, low: str, high: str) -> None:
    assert scores(low, "en")[score] + 0.05 < scores(high, "en")[score]


def test_repetition_and_variety_by_definition() -> None:
    assert repetition(["a", "b", "c", "a", "b", "c", "a"]) == pytest.approx(2 / 5)
    assert repetition(["a"]) == 0 and variety([]) == 0
    assert variety(["a"] * 100 + ["b"]) == pytest.approx((1 + 2) / 2 / 100)


def test_a_language_without_a_list_has_no_such_share() -> None:
    assert "function" not in scores("Stara wieża stoi od wielu lat na brzegu jeziora.", "pl")
    assert scores("", "en")["words"] == 0
    assert "language" not in scores(GOOD, "tlh") and scores(GOOD, "en-GB")["language"] == scores(GOOD, "en")["language"]


def step(world: Any, sample: Any, **config: Any) -> Any:
    return asyncio.run(run(ScoreConfig(kind="curate.score", **config), sample, world.context()))


def test_scores_are_marks_and_bounds_drop(world: Any) -> None:
    chunk = world.chunk(GOOD)
    sample = world.qa("Where does the mill stand, of which so much is said?", "By the river.", chunk)
    (marked,) = step(world, sample)
    assert marked.id == sample.id and marked.marks["scores"]["words"] == 3
    (all_of_it,) = step(world, sample, of="all")
    assert all_of_it.marks["scores"]["words"] == 14
    assert step(world, sample, keep={"words": {"at_least": 3, "at_most": 3}}) == [marked]
    with pytest.raises(Reject, match="words out of bounds"):
        step(world, sample, keep={"words": {"at_least": 4}})


@pytest.mark.parametrize("bounds", [{}, {"at_least": 2, "at_most": 1}])
def test_bounds_that_say_nothing_are_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ScoreConfig(kind="curate.score", keep={"words": bounds})
