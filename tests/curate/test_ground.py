"""The grounding gate, through its public run function."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.core.records import Document, Quote
from gristmill.curate.ground import run
from gristmill.curate.stages import GroundConfig

CONFIG = GroundConfig(kind="curate.ground")


def verdict(world: Any, source: str, ask: str, answer: str, language: str = "en", **config: Any) -> str:
    chunk = world.chunk(source, language=language)
    return world.step(run, CONFIG.model_copy(update=config), world.qa(ask, answer, chunk), world.context([chunk]))


@pytest.mark.parametrize(
    ("source", "answer"),
    [
        ("The mill was built by Anna Weber in 1720.", "Anna Weber"),
        ("The mill was built by Anna Weber in 1720.", "It was Weber's mill, built in 1720."),
        ("The Webers' mill stood by the river.", "Weber"),
        ("It cost 1,200 crowns.", "1200 crowns"),
        ("It cost 1200 crowns.", "1,200 crowns"),
        ("It cost 1 200 crowns.", "1,200"),
        ("It has twelve sails.", "12"),
        ("It has 12 sails.", "Twelve sails"),
        ("It has 21 sails.", "twenty-one"),
        ("The war lasted from 1914-1918.", "1918"),
        ("The war lasted from 1914–18.", "It lasted until 1918."),
        ("The wheel is 1.50 m wide.", "1.5 m"),
        ("It opened on 12.03.1990.", "1990"),
        ("It opened at 10:30.", "10:30"),
        ("Dr. Who opened the gate.", "Dr. Who"),
        ("Élodie Gérard painted it.", "Elodie Gerard"),
        ("He lived in the U.S.A. for years.", "The USA"),
        ("The code of the gate is B2.", "B2"),
        ("It lay at -5 degrees.", "-5 degrees"),
        ("Jean-Luc O'Brien sold it.", "Jean-Luc O'Brien"),
        ("The 3rd floor burned.", "the 3rd floor"),
        ("Louis XIV paid for it.", "Louis XIV"),
    ],
)
def test_grounded_answers_pass(world: Any, source: str, answer: str) -> None:
    assert verdict(world, source, "What is said of the mill, the gate or the river?", answer, question=False) == ""


@pytest.mark.parametrize(
    ("source", "answer", "reason"),
    [
        ("The wheel is 1.5 m wide.", "15 m", "number not in quote"),
        ("The wheel is 15 m wide.", "1.5 m", "number not in quote"),
        ("The wheel is 1.5 m wide.", "5 m", "number not in quote"),
        ("It cost 1,200 crowns.", "200 crowns", "number not in quote"),
        ("It cost 1,200 crowns.", "1,201 crowns", "number not in quote"),
        ("It was built in 1720.", "It was built in 1721.", "number not in quote"),
        ("It was built in 1720.", "It was built in 172.", "number not in quote"),
        ("The war lasted from 1914-1918.", "1916", "number not in quote"),
        ("It has twelve sails.", "13 sails", "number not in quote"),
        ("It has 12 sails.", "thirteen sails", "number not in quote"),
        ("It has 21 sails.", "twenty-two", "number not in quote"),
        ("It lay at 5 degrees.", "-5 degrees", "number not in quote"),
        ("It opened on 12.03.1990.", "12.04.1990", "number not in quote"),
        ("Dr. Strange opened the gate.", "Dr. Who", "name not in quote"),
        ("Anna opened the gate.", "Annabel opened the gate.", "name not in quote"),
        ("Anna Weber opened the gate.", "Anna Becker opened the gate.", "name not in quote"),
        ("Anna opened the gate.", "Bert's gate", "name not in quote"),
        ("The code of the gate is B2.", "B3", "name not in quote"),
        ("Louis XIV paid for it.", "Louis XV", "name not in quote"),
        ("The gate is made of copper.", "silver and gold", "answer not in quote"),
    ],
)
def test_invented_answers_are_dropped(world: Any, source: str, answer: str, reason: str) -> None:
    assert verdict(world, source, "What is said of it?", answer, question=False) == reason


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        ("What honey do the bees keep?", "The bees keep dark honey.", "answer not in quote"),
        ("In what do the bees keep honey?", "The bees keep honey in hives of clay.", ""),
        ("Do the bees keep honey?", "The bees keep honey.", ""),  # it adds nothing
    ],
)
def test_the_words_of_the_question_prove_nothing(world: Any, question: str, answer: str, reason: str) -> None:
    assert (
        verdict(world, "The people there keep bees in hives made of clay.", question, answer, question=False) == reason
    )


@pytest.mark.parametrize(
    ("source", "question", "answer", "reason"),
    [
        ("Die alten Mühlen wurden 1720 errichtet.", "Wann wurde die Mühle errichtet?", "Im Jahr 1720", ""),
        ("Das Haus des Müllers kostete 1.200 Taler.", "Was kostete das Haus?", "1200 Taler", ""),
        ("Der Turm ist 1,5 Meter hoch.", "Wie hoch ist der Turm?", "1,5 Meter", ""),
        ("Der Turm ist 1,5 Meter hoch.", "Wie hoch ist der Turm?", "15 Meter", "number not in quote"),
        ("Es hat zwölf Räder.", "Wie viele Räder hat es?", "12 Räder", ""),
        ("Es hat zwölf Räder.", "Wie viele Räder hat es?", "Elf Räder", "number not in quote"),
        ("Karl Schäfer führte die Mühle.", "Wem gehörte die Mühle?", "Karl Schäfers Mühle", ""),
        ("Karl Schäfer führte die Mühle.", "Wer führte die Mühle?", "Karl Becker", "name not in quote"),
        ("Die Häuser brannten.", "Was brannte?", "Ein Haus brannte.", ""),
        ("Die Mühle steht an der Elbe.", "Wo steht die Mühle?", "An der Donau", "answer not in quote"),
    ],
)
def test_german(world: Any, source: str, question: str, answer: str, reason: str) -> None:
    assert verdict(world, source, question, answer, "de") == reason


@pytest.mark.parametrize(
    ("source", "question", "answer", "reason"),
    [
        ("Le moulin de l'Île a coûté 1 200 francs.", "Combien a coûté le moulin ?", "1200 francs", ""),
        ("Le moulin compte douze ailes.", "Combien d'ailes ?", "12 ailes", ""),
        ("Le moulin compte douze ailes.", "Combien d'ailes ?", "Treize ailes", "number not in quote"),
        ("Jeanne d'Arc vint au moulin.", "Qui vint au moulin ?", "Jeanne d'Arc", ""),
        ("Jeanne d'Arc vint au moulin.", "Qui vint au moulin ?", "Marie d'Arc", "name not in quote"),
        ("La roue mesure 1,5 m.", "Combien mesure la roue ?", "1.5 m", ""),
    ],
)
def test_french(world: Any, source: str, question: str, answer: str, reason: str) -> None:
    assert verdict(world, source, question, answer, "fr") == reason


def test_separators_mean_what_the_language_says(world: Any) -> None:
    assert verdict(world, "It is 1.200 m long.", "How long?", "1200 m", question=False) == "number not in quote"
    assert verdict(world, "Es ist 1.200 m lang.", "Wie lang?", "1200 m", "de") == ""


@pytest.mark.parametrize(
    ("source", "language", "question", "answer", "reason"),
    [
        ("The cask holds 1,500 litres.", "de", "Wie viel fasst jedes Fass?", "Jeden Tag 1.500 Liter", ""),
        ("The cask holds 1,500 litres.", "de-AT", "Wie viel fasst das Fass?", "1500 Liter", ""),
        ("The cask holds 1,500 litres.", "de", "Wie viel fasst das Fass?", "1,5 Liter", "number not in quote"),
        ("The cask holds 1.5 litres.", "de", "Wie viel fasst das Fass?", "1.500 Liter", "number not in quote"),
        ("The cask holds twelve litres.", "de", "Wie viel fasst das Fass?", "12 Liter", ""),
        ("A third, 33%, of the new mill burned.", "fr", "Combien du moulin neuf a brûlé ?", "33 % du moulin neuf", ""),
        ("He crossed the Danube at Vienna.", "de", "Wo überquerte er die Donau?", "Bei Wien", ""),
        ("It burned in 1720.", "de", "Was geschah 1721?", "Sie brannte 1720.", "number of the question not in source"),
    ],
)
def test_across_languages_only_numbers_are_held_to_the_source(
    world: Any, source: str, language: str, question: str, answer: str, reason: str
) -> None:
    chunk = world.chunk(source)
    ctx = world.context([chunk])
    assert world.step(run, CONFIG, world.qa(question, answer, chunk, language=language), ctx) == reason
    if not reason:
        text = f"{question} {answer}."
        assert world.step(run, CONFIG, world.text(text, chunk, language=language), ctx) == ""
        assert (
            world.step(run, CONFIG, world.text(f"{text} 77", chunk, language=language), ctx) == "number not in source"
        )
        loose = CONFIG.model_copy(update={"numbers": False})
        assert world.step(run, loose, world.text(f"{text} 77", chunk, language=language), ctx) == ""


def test_another_name_of_the_same_language_is_not_another_language(world: Any) -> None:
    chunk = world.chunk("Anna Weber built the mill.")
    asked = world.qa("Who built the mill?", "Bert Cole", chunk, language="en-GB")
    assert world.step(run, CONFIG, asked, world.context([chunk])) == "name not in quote"
    nowhere = chunk.model_copy(update={"language": "und"})
    asked = world.qa("Who built the mill?", "Bert Cole", nowhere, language="en")
    assert world.step(run, CONFIG, asked, world.context([nowhere])) == "name not in quote"


def test_the_documents_that_an_answer_cites_are_no_claim(world: Any) -> None:
    chunk = world.chunk("Anna Weber built the mill.", path="mills/1900.md")
    ctx = world.context([chunk])
    cited, other = (world.qa("Who built the mill?", f"Anna Weber ({path})", chunk) for path in (chunk.path, "1901.md"))
    assert world.step(run, CONFIG, cited, ctx) == ""
    assert world.step(run, CONFIG, other, ctx) == "number not in quote"


def test_quotes_are_exact_in_any_language(world: Any) -> None:
    chunk = world.chunk("Anna Weber built the mill.")
    wrong = world.quote(chunk).model_copy(update={"start": 0, "end": 26})
    asked = world.qa("Wer baute die Mühle?", "Anna Weber", chunk, wrong, language="de")
    assert world.step(run, CONFIG, asked, world.context([chunk])) == "quote not in source"
    bare = asked.model_copy(update={"quotes": ()})
    assert world.step(run, CONFIG, bare, world.context([chunk])) == "no quote"


def test_a_question_may_not_bring_its_own_facts(world: Any) -> None:
    source = "Anna Weber built the mill in 1720."
    assert verdict(world, source, "When did Anna Weber build the mill?", "1720") == ""
    assert verdict(world, source, "When did Bert Cole build the mill?", "1720") == "name of the question not in source"
    assert verdict(world, source, "Who built it in 1721?", "Anna Weber") == "number of the question not in source"


def test_a_question_over_several_passages_may_name_what_any_of_them_holds(world: Any) -> None:
    one, other = world.chunk("Anna Weber built the mill."), world.chunk("Bert Cole built the tower in 1720.", start=900)
    far = world.chunk("Carl Dorn built the gate.", start=2000)
    quotes = (world.quote(one), world.quote(other))
    asked = "Who built before Bert Cole, who built in 1720?"
    sample = world.qa(asked, "Anna Weber", one, *quotes, parents=(one.id, other.id, far.id))
    ctx = world.context([one, other, far])
    assert world.step(run, CONFIG, sample, ctx) == ""
    strange = world.qa("Who built before Carl Dorn?", "Anna Weber", one, *quotes, parents=sample.parents)
    assert world.step(run, CONFIG, strange, ctx) == "name of the question not in source"


def test_quotes_are_compared_at_their_place(world: Any) -> None:
    chunk = world.chunk("The mill is old. The mill is red.")
    right = world.quote(chunk, "The mill is red.")
    ctx = world.context([chunk])
    shifted = right.model_copy(update={"start": right.start - 1, "end": right.end - 1})
    elsewhere = right.model_copy(update={"path": "other.md"})
    before = Quote(text=right.text, start=0, end=len(right.text), path=chunk.path)
    assert world.step(run, CONFIG, world.qa("What is red?", "the mill", chunk, right), ctx) == ""
    for wrong in (shifted, elsewhere, before):
        assert world.step(run, CONFIG, world.qa("What is red?", "the mill", chunk, wrong), ctx) == "quote not in source"


def test_a_document_vouches_where_the_chunk_ends(world: Any) -> None:
    document = Document(
        path="mill.md", title="", text="The mill is old. It is red.", language="en", media_type="text/plain"
    )
    chunk = world.chunk("It is red.", start=17, parents=(document.id,))
    quote = Quote(text="The mill is old.", start=0, end=16, path="mill.md")
    sample = world.qa("How is the mill?", "old", chunk, quote)
    assert world.step(run, CONFIG, sample, world.context([chunk])) == "quote not in source"
    assert (
        world.step(run, CONFIG.model_copy(update={"question": False}), sample, world.context([chunk, document])) == ""
    )


def test_nothing_to_rest_on_is_a_reason(world: Any) -> None:
    chunk = world.chunk("The mill is old.")
    sample = world.qa("How old?", "old", chunk)
    assert world.step(run, CONFIG, sample, world.context()) == "no source"
    bare = sample.model_copy(update={"quotes": ()})
    assert world.step(run, CONFIG, bare, world.context([chunk])) == "no quote"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("In 1720 Anna Weber built the old mill.", ""),
        ("The Mill, page 3: Anna Weber built it in 1720.", ""),
        ("A: Who built the old mill?\nB: Anna Weber built it in 1720.", ""),
        ("In 1721 Anna Weber built the old mill.", "number not in source"),
        ("In 1720 Bert Weber built the old mill.", "name not in source"),
    ],
)
def test_texts_are_held_against_the_whole_chunk(world: Any, text: str, reason: str) -> None:
    chunk = world.chunk("The old mill has a story. Anna Weber built it in 1720.", pages=(3,))
    assert world.step(run, CONFIG, world.text(text, chunk), world.context([chunk])) == reason


WORDS = st.sampled_from(
    ["mill", "stone", "wheel", "Anna", "Weber", "12", "1720", "1,200", "3.5", "twelve", "old", "the"]
)


@given(st.lists(WORDS, min_size=3, max_size=30), st.data())
def test_what_is_copied_always_passes(world: Any, tokens: list[str], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(tokens) - 1))
    end = data.draw(st.integers(start + 1, len(tokens)))
    answer = " ".join(tokens[start:end])
    assert verdict(world, " ".join(tokens), "What is said?", answer, question=False) == ""


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_numbers_agree_by_value_alone(world: Any, one: int, other: int) -> None:
    written = f"The count is {one:,} today."
    assert verdict(world, written, "What is the count today?", f"{one} today") == ""
    expected = "" if one == other else "number not in quote"
    assert verdict(world, written, "What is the count today?", f"{other} today") == expected


@pytest.mark.parametrize("word", ["x", "X", "a1", "1a", "1", "ä"])
def test_a_word_without_end_is_read_once(world: Any, word: str) -> None:
    """In time that grows with the text, not with its square: that would be a minute."""
    began = time.process_time()
    assert verdict(world, "The mill stood by the river.", "What stood there?", word * 100_000) != ""
    assert time.process_time() - began < 5
