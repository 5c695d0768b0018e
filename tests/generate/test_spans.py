"""Which words are worth asking for: on sentences written for each rule, and exact on any text at all."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from gristmill.generate.spans import names_in, pick

EXPECTED = [
    ("Edda Moor lit the lamp on 3 May 1871 at 6:30 for the first time.", "en", {"3 May 1871", "6:30", "Edda Moor"}),
    ("The tower is 41.5 metres tall and was built in 1822.", "en", {"41.5 metres", "1822"}),
    ("Three stone bridges cross the river near the Salt Court.", "en", {"Three", "Salt Court"}),
    (
        "It was built between 1818 and 1822 by Edda Moor and Tam Hale.",
        "en",
        {"between 1818 and 1822", "Edda Moor and Tam Hale"},
    ),
    ("In Kessel, Edda Moor and Tam Hale signed it.", "en", {"Kessel", "Edda Moor and Tam Hale"}),
    ("The bell, nicknamed “Old Grumble”, weighs 2,400 kg.", "en", {"Old Grumble", "2,400 kg"}),
    ("It stands on a rock called the Gull's Table.", "en", {"Gull's Table"}),
    ("The roof is made of blue slate.", "en", {"blue slate"}),
    ("The ferry takes between 20 and 30 minutes and costs €5.", "en", {"between 20 and 30 minutes", "€5"}),
    ("It grew from 1,200 people in 1900 to 3,450 in 1950.", "en", {"1,200", "1900", "3,450", "1950"}),
    ("Use Python 3.11 at Gate 4.", "en", {"Python 3.11", "Gate 4"}),
    ("The harbour freezes at −4 °C.", "en", {"−4 °C"}),
    ("Der Turm wurde am 3. Mai 1822 von Edda Moor gebaut.", "de", {"3. Mai 1822", "Edda Moor"}),
    ("Drei Brücken führen über den Fluss.", "de", {"Drei"}),
    ("Le phare fut construit en 1822 par Edda Moor et mesure 41 mètres.", "fr", {"1822", "Edda Moor", "41 mètres"}),
    ("灯塔建于1822年，高41米，位于海边的岩石上。", "zh", {"1822", "41"}),
]
NOTHING = ["See chapter 3 for more of them.", "It was one of the best.", "However, this is rarely done.", ""]


@pytest.mark.parametrize(("sentence", "language", "answers"), EXPECTED)
def test_picks_what_can_be_asked_for(sentence: str, language: str, answers: set[str]) -> None:
    assert {span.text for span in pick(sentence, language=language)} == answers


@pytest.mark.parametrize("sentence", NOTHING)
def test_finds_nothing_where_there_is_nothing(sentence: str) -> None:
    assert pick(sentence) == []


def test_the_surest_comes_first() -> None:
    kinds = [span.kind for span in pick("Varn has two harbours, and Edda Moor lit the lamp in 1822 for 14 crowns.")]
    assert kinds == ["year", "quantity", "name", "number"]


def test_a_first_word_is_a_name_only_where_it_is_one_elsewhere() -> None:
    sentence = "Varn holds a market."
    assert pick(sentence) == []
    known = names_in(["The road to Varn is steep."])
    assert [span.text for span in pick(sentence, names=known)] == ["Varn"]


def test_what_is_said_twice_is_left_out() -> None:
    assert [s.text for s in pick("From Kessel to Orrin and back to Kessel it takes six days.")] == ["six days", "Orrin"]


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "ja"])
def test_offsets_are_exact_on_any_text(language: str) -> None:
    rng = random.Random(language)
    pieces = [
        "1822",
        "3 May",
        "Edda",
        "Moor's",
        "of",
        "the",
        "12",
        ",",
        ".",
        "“",
        "”",
        "€",
        "-",
        "é",
        "灯塔",
        "41 km",
        "\n",
        "and",
        "X.",
    ]
    for _ in range(300):
        text = rng.choice(["", " "]).join(rng.choice(pieces) + rng.choice(["", " "]) for _ in range(rng.randint(0, 25)))
        spans = pick(text, language=language)
        assert all(text[span.start : span.end] == span.text and span.text.strip() for span in spans)
        ordered = sorted(spans, key=lambda span: span.start)
        assert all(a.end <= b.start for a, b in pairwise(ordered))
