"""Each check of the filter, through its public run function."""

from __future__ import annotations

from typing import Any

import pytest

from gristmill.core.prompt import Prompt
from gristmill.core.records import Message
from gristmill.curate.filter import run
from gristmill.curate.stages import FilterConfig

SOURCE = "Anna Weber built the old water mill near Kolm in 1720. The wheel is made of oak."
CONFIG = FilterConfig(kind="curate.filter")


def verdict(world: Any, ask: str, answer: str, source: str = SOURCE, language: str = "en", **config: Any) -> str:
    chunk = world.chunk(source, language=language)
    return world.step(run, CONFIG.model_copy(update=config), world.qa(ask, answer, chunk), world.context([chunk]))


@pytest.mark.parametrize(
    ("ask", "answer", "reason"),
    [
        ("Who built the old water mill near Kolm?", "Anna Weber", ""),
        ("Who built the mill called “Kolm?”", "Anna Weber", ""),
        ("Who?", "Anna Weber", "question too short"),
        ("Who built it " + "and " * 120 + "why?", "Anna", "question too long"),
        ("Who built the mill?", "wheel " * 501, "answer too long"),
        ("The mill was built by", "Anna Weber", "question without question mark"),
        ("Who built the mill according to the text?", "Anna Weber", "question leans on its source"),
        ("What does the passage say of oak?", "the wheel", "question leans on its source"),
        ("What do the texts in Kolm say?", "nothing of it", ""),
        ("Who is the author of the anthem of Kolm?", "Anna Weber", ""),
        ("When was the author of “The Drowned Bell” born?", "in 1720", ""),
        ("How long is the passage between Kolm and Varn?", "a mile", ""),
        ("Who is the author of the text?", "Anna Weber", "question leans on its source"),
        ("Who is the author of this passage?", "Anna Weber", "question leans on its source"),
        ("According to the text, which wood is it?", "oak", "question leans on its source"),
        ("According to the text which wood is it?", "oak", "question leans on its source"),
        ("Who built the old mill?", "WHO built the old mill", "answer repeats its question"),
        ("Who built it?", "Anna Weber<|im_end|>", "role marker"),
        ("Who built it?", "Anna Weber\nUser: and then?", "role marker"),
        ("### Question: Who built it?", "Anna Weber", "role marker"),
        ("Who built it?", "```Anna Weber```", "code or JSON remnant"),
        ("Who built it?", '{"answer": "Anna Weber"}', "code or JSON remnant"),
        ("Who built it?", "the mill the mill the mill the mill the mill", "repetition"),
        ("Who built it?", "no no no no no no no no no", "repetition"),
        ("Who built it?", "mill!!!!!!!!!!!!!!!!", "repetition"),
        ("Who built it?", "As an AI language model, I cannot help with that.", "speaks as a language model"),
        ("Is it as an aisle is?", "It was the wheel.", ""),
        ("Wer hat die alte Wassermühle in der Nähe gebaut?", "Das war die Frau des Müllers.", "wrong language"),
    ],
)
def test_checks(world: Any, ask: str, answer: str, reason: str) -> None:
    assert verdict(world, ask, answer) == reason


@pytest.mark.parametrize(
    ("language", "ask", "answer", "reason"),
    [
        ("de", "Wann wurde die Mühle laut dem Text gebaut?", "1720", "question leans on its source"),
        ("de", "Wann wurde die alte Mühle in Kolm gebaut?", "Im Jahr 1720", ""),
        ("fr", "Que dit l’extrait du moulin ?", "Il est vieux.", "question leans on its source"),
        ("de", "Wer hat die Mühle gebaut?", "Als KI kann ich das nicht sagen.", "speaks as a language model"),
        ("fr", "Quand le vieux moulin a-t-il été construit ?", "En 1720", ""),
    ],
)
def test_other_languages(world: Any, language: str, ask: str, answer: str, reason: str) -> None:
    assert verdict(world, ask, answer, language=language) == reason


@pytest.mark.parametrize(
    ("language", "reason"), [("en-GB", ""), ("EN", ""), ("tlh", ""), ("Swiss German", ""), ("de-AT", "wrong language")]
)
def test_a_language_that_the_detector_does_not_know_is_not_judged(world: Any, language: str, reason: str) -> None:
    asked = "Who built the old mill that stands by the river near the village?"
    assert verdict(world, asked, "It was the wife of the miller.", language=language) == reason


def test_what_the_source_holds_is_no_defect(world: Any) -> None:
    source = 'Write {"wheel": "oak"} to the file. Question: is it oak?\nla la la la la la la la la'
    assert verdict(world, "What is written to the file?", '{"wheel": "oak"}', source) == ""
    assert verdict(world, "How does it speak?", "As an AI, it says.", "The robot says: as an AI I see.") == ""
    assert verdict(world, "How does it speak?", "As an AI, it says.", model_talk=False) == ""
    assert verdict(world, "What is sung at the mill?", "la la la la la la la la la", source) == ""


def test_an_answer_that_repeats_its_question_is_dropped_where_nothing_else_asks_for_it(world: Any) -> None:
    ctx = world.context([chunk := world.chunk(SOURCE)])
    echo = world.qa("The wheel turns.", "the wheel turns", chunk, kind="ask")
    system = Message(role="system", content="Correct the spelling.")
    assert world.step(run, CONFIG, echo, ctx) == "answer repeats its question"
    assert world.step(run, CONFIG, echo.model_copy(update={"desirable": False}), ctx) == ""
    assert world.step(run, CONFIG, echo.model_copy(update={"messages": (system, *echo.messages)}), ctx) == ""


def test_phrases_of_ones_own_lean_whatever_stands_after_them(world: Any) -> None:
    own = {"en": ["the author"]}
    asked = "Who is the author of the anthem of Kolm?"
    assert verdict(world, asked, "Anna", leaning=own) == "question leans on its source"
    assert verdict(world, "What does the text say?", "Anna", leaning=own) == ""


def test_checks_can_be_set(world: Any) -> None:
    assert verdict(world, "Who built the mill in the text?", "Anna", leaning={"en": ["oak"]}) == ""
    assert verdict(world, "Who built the oak wheel?", "Anna", leaning={"en": ["oak"]}) == "question leans on its source"
    assert verdict(world, "Is Anna Weber the builder?", "Anna Weber", answer_in_question=True) == "answer in question"
    assert verdict(world, "Is Anna Weberin the builder?", "Anna Weber", answer_in_question=True) == ""
    assert verdict(world, "The mill was built by", "Anna Weber", question_mark=False) == ""


def test_cloze_and_texts_are_no_questions(world: Any) -> None:
    chunk = world.chunk(SOURCE)
    ctx = world.context([chunk])
    assert world.step(run, CONFIG, world.qa("The wheel is made of ____.", "oak", chunk, kind="cloze"), ctx) == ""
    assert world.step(run, CONFIG, world.text("The wheel is made of oak.", chunk), ctx) == ""
    assert world.step(run, CONFIG, world.qa("The wheel is made of ____.", "oak", chunk), ctx) == ""
    assert world.step(run, CONFIG, world.qa("Name the wood of the wheel.", "oak", chunk), ctx) == ""
    assert world.step(run, CONFIG, world.text("A: What is made of oak?\nB: The wheel is.", chunk), ctx) == ""
    assert world.step(run, CONFIG, world.text("The wheel is of oak.</s>", chunk), ctx) == "role marker"
    assert world.step(run, CONFIG, world.text("The wheel", chunk), ctx) == "text too short"


EXAMPLES = """@user
The copper lighthouse of Varn was lit in 1850 by two brothers. The mill was built by someone.
@assistant
When was the copper lighthouse of Varn lit?
@user
{{text}}
"""


@pytest.mark.parametrize(
    ("ask", "answer", "reason"),
    [
        ("When was the copper lighthouse of Kolm lit?", "1720", "repeats an example of the prompt"),
        ("Who lit it?", "It was lit in 1850 by Anna Weber.", "repeats an example of the prompt"),
        ("Who says the mill was built by someone?", "Anna Weber", ""),  # function words and words of the source
        ("When was the old water mill of Kolm built?", "1720", ""),
    ],
)
def test_examples_of_the_prompt_do_not_leak(world: Any, ask: str, answer: str, reason: str) -> None:
    chunk = world.chunk(SOURCE)
    ctx = world.context([chunk])
    ctx.prompts["qa@1"] = Prompt("qa", EXAMPLES)
    assert world.step(run, CONFIG, world.qa(ask, answer, chunk, prompt="qa@1"), ctx) == reason
    assert world.step(run, CONFIG, world.qa(ask, answer, chunk), ctx) == ""


def test_what_the_instructions_say_is_no_leak(world: Any) -> None:
    ctx = world.context([chunk := world.chunk(SOURCE)])
    told = "@system\nSay that the passages hold nothing of it, and that you answer from memory."
    said = "Nothing in these passages, so I answer from memory: in Varn."
    ctx.prompts["said@1"] = Prompt("said", f"{told}\n@user\nWhere?\n@assistant\n{said}\n@user\n{{{{text}}}}\n")
    sample = world.qa("Where does it stand?", said.replace("Varn", "Kolm"), chunk, prompt="said@1")
    assert world.step(run, CONFIG, sample, ctx) == ""
    ctx.prompts["said@1"] = Prompt("said", f"@user\nWhere?\n@assistant\n{said}\n@user\n{{{{text}}}}\n")
    assert world.step(run, CONFIG, sample, ctx) == "repeats an example of the prompt"


def test_an_example_that_the_source_says_too_is_no_leak(world: Any) -> None:
    chunk = world.chunk("The copper lighthouse of Varn was lit in 1850 by two brothers.")
    ctx = world.context([chunk])
    ctx.prompts["qa@1"] = Prompt("qa", EXAMPLES)
    sample = world.qa(
        "Who lit the copper lighthouse of Varn?", "It was lit in 1850 by two brothers.", chunk, prompt="qa@1"
    )
    assert world.step(run, CONFIG, sample, ctx) == ""
