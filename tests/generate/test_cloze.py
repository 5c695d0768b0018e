"""Blanks and certain questions: made by code, answerable, never showing their answer."""

from __future__ import annotations

import pytest
from tests.generate.conftest import DOCUMENT, Context, chunk_of

from gristmill.core.errors import Reject
from gristmill.generate import cloze, passage
from gristmill.generate.cloze import BLANK
from gristmill.generate.english import question
from gristmill.generate.spans import pick
from gristmill.generate.stages import ClozeConfig, PassageConfig
from gristmill.generate.wording import holds

CLOZE = ClozeConfig(kind="generate.cloze")


async def test_every_blank_has_one_answer_from_its_quote() -> None:
    chunk = chunk_of()
    samples = await cloze.run(CLOZE.model_copy(update={"wordings": 4}), chunk, Context(None, chunk))
    assert len(samples) > 20
    for sample in samples:
        quote = sample.quotes[0]
        assert DOCUMENT.text[quote.start : quote.end] == quote.text
        assert sample.answer in quote.text and not holds(sample.question, sample.answer)
        assert sample.question.count(BLANK) == 1 or sample.question.endswith("?")
        assert [m.train for m in sample.messages] == [False, True]
    assert len({sample.id for sample in samples}) == len(samples)


async def test_quotes_carry_the_pages_they_stand_on() -> None:
    chunk = chunk_of()
    samples = await cloze.run(CLOZE, chunk, Context(None, chunk))
    assert {quote.pages for sample in samples for quote in sample.quotes} == {(1,), (1, 2), (2,)}
    last = max((quote for sample in samples for quote in sample.quotes), key=lambda quote: quote.start)
    assert last.pages == (2,)


async def test_the_same_record_gives_the_same_samples() -> None:
    chunk = chunk_of()
    first, second = [await cloze.run(CLOZE, chunk, Context(None, chunk)) for _ in range(2)]
    assert [sample.digest for sample in first] == [sample.digest for sample in second]


async def test_a_pronoun_comes_with_what_it_refers_to() -> None:
    chunk = chunk_of()
    samples = await cloze.run(CLOZE, chunk, Context(None, chunk))
    tower = next(sample for sample in samples if sample.answer == "41 metres" and BLANK in sample.question)
    assert "lighthouse at Varn was built" in tower.question


async def test_nothing_to_ask_for_is_a_reject() -> None:
    chunk = chunk_of("However, this is rarely done by them.")
    with pytest.raises(Reject, match="nothing to ask for"):
        await cloze.run(CLOZE, chunk, Context(None, chunk))


@pytest.mark.parametrize("language", ["de", "fr", "es", "ja"])
async def test_wordings_follow_the_language(language: str) -> None:
    chunk = chunk_of("Der Hafen wurde 1735 von Jost Feddern gegründet.", language=language)
    samples = await cloze.run(CLOZE, chunk, Context(None, chunk))
    assert samples and not any("Fill in" in s.question or "Complete the" in s.question for s in samples)


QUESTIONS = [
    ("The town library holds 912 maps.", "912", "How many maps does the town library hold?"),
    ("A trawler pays 26 crowns a night.", "26 crowns", "How many crowns does a trawler pay a night?"),
    ("Nell Breel kept the light for 29 years.", "29 years", "Nell Breel kept the light for how many years?"),
    ("In 1822 the tower was moved to Kessel.", "1822", "In what year was the tower moved to Kessel?"),
    ("The tower is about 41 metres tall and painted white.", "41 metres", "How tall is the tower?"),
    ("The first stone was laid on 3 May 1871.", "3 May 1871", "On what date was the first stone laid?"),
    ("Fishing is banned on Sundays.", "Sundays", "On what day is fishing banned?"),
    ("The roof is made of blue slate.", "blue slate", "What is the roof made of?"),
    ("Three stone bridges cross the Ulm.", "Three", "How many stone bridges cross the Ulm?"),
    ("Edda Moor designed the lamp in 1871.", "Edda Moor", "Who designed the lamp in 1871?"),
    ("The Grey Ferry has two decks.", "Grey Ferry", "Who or what has two decks?"),
    ("The first stones were laid by Tam Hale in 1820.", "Tam Hale", "Who were the first stones laid by in 1820?"),
    ("The keeper of the tower is Tam Hale.", "Tam Hale", "Who is the keeper of the tower?"),
    ("The pilot boat of Kessel is the Quick Ann.", "Quick Ann", "What is the pilot boat of Kessel?"),
    ("The lens was ground in Antwerp.", "Antwerp", "Where was the lens ground?"),
    ("The inn stands on Vetch Lane.", "Vetch Lane", "Where does the inn stand?"),
]
UNCERTAIN = [
    "The tower was damaged by storms and rebuilt in 1830.",
    "It was built in 1822.",
    "The tower, which Tam Hale built, was moved in 1822.",
]


@pytest.mark.parametrize(("sentence", "answer", "expected"), QUESTIONS)
def test_questions_that_grammar_allows(sentence: str, answer: str, expected: str) -> None:
    span = next(span for span in pick(sentence) if span.text == answer)
    assert question(sentence, span) == expected


@pytest.mark.parametrize("sentence", UNCERTAIN)
def test_no_question_where_grammar_is_in_doubt(sentence: str) -> None:
    assert not [asked for span in pick(sentence) if span.kind == "year" and (asked := question(sentence, span))]


async def test_a_passage_is_the_text_under_its_place() -> None:
    chunk = chunk_of()
    config = PassageConfig(kind="generate.passage", styles=["chunk", "sentences"])
    whole, *sentences = await passage.run(config, chunk, Context(None, chunk))
    assert whole.text == f"The Varn Lighthouse > History\n\n{chunk.text}" and whole.train is True
    assert len(sentences) == len(chunk.sentences)
    assert len(sentences[1].quotes) == 2  # "Its tower …" after the sentence it refers to
