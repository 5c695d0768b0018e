"""Kinds that ask a model, through the real client and a server over HTTP: what is asked, kept and dropped."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tests.fakes.fixtures import FakeServer
from tests.generate.conftest import DOCUMENT, PROMPTS, Context, chunk_of

from gristmill.core.ask import Answer, Model, Parsed, Usage
from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Message, Record
from gristmill.generate import facts, qa, rephrase
from gristmill.generate.source import source_of
from gristmill.generate.stages import STAGES, FactsConfig, QaConfig, RephraseConfig
from gristmill.generate.wording import check_question, check_rewriting, one_line

CONFIGS: list[Any] = [
    FactsConfig(kind="generate.facts", model="writer"),
    QaConfig(kind="generate.qa", model="writer", ways=["direct", "reversed", "fill", "scenario"]),
    QaConfig(kind="generate.qa", model="writer", ask="line", ways=["request"], wordings=2),
]
RUN = {"generate.facts": facts.run, "generate.qa": qa.run, "generate.rephrase": rephrase.run}


def made(record: Any) -> list[Any]:
    return [record.quote] if record.type == "fact" else list(record.quotes)


@pytest.mark.parametrize("config", CONFIGS)
async def test_quotes_are_copied_by_code_and_origins_are_kept(config: Any, model: Model) -> None:
    chunk = chunk_of()
    context = Context(model, chunk)
    records = await RUN[config.kind](config, chunk, context)
    assert records and len({record.id for record in records}) == len(records)
    for record in records:
        for quote in made(record):
            assert DOCUMENT.text[quote.start : quote.end] == quote.text and quote.path == DOCUMENT.path
        assert record.parents == (chunk.id,)
        assert record.origin.model == model.identity and record.origin.calls and record.origin.stage == "questions"
        assert context.prompt(record.origin.prompt.partition("@")[0]).ref == record.origin.prompt


async def test_a_fact_is_asked_about_in_its_own_quote(model: Model) -> None:
    chunk = chunk_of()
    fact, *_ = await facts.run(CONFIGS[0], chunk, Context(model, chunk))
    samples = await qa.run(CONFIGS[1], fact, Context(model, chunk, fact))
    assert {sample.quotes for sample in samples} == {(fact.quote,)}
    assert {sample.parents for sample in samples} == {(fact.id,)}


@pytest.mark.parametrize("config", CONFIGS)
async def test_truncated_answers_are_a_reject(config: Any, model: Model, fake: FakeServer) -> None:
    fake.reset(finish="length")
    chunk = chunk_of()
    with pytest.raises(Reject):
        await RUN[config.kind](config, chunk, Context(model, chunk))


async def test_answers_against_the_schema_are_a_reject(model: Model, fake: FakeServer) -> None:
    fake.reset(pinvalid=1.0, bad_until_turns=99)
    chunk = chunk_of()
    with pytest.raises(Reject, match="invalid answer"):
        await qa.run(CONFIGS[1], chunk, Context(model, chunk))


@pytest.mark.parametrize("number", [0, 6, -1])
def test_a_sentence_that_does_not_exist_is_refused(number: int) -> None:
    asked = {"sentence": number, "question": "In what year was it built?", "answer": "1822"}
    with pytest.raises(ValidationError, match="sentence"):
        qa.schema(5, 3).model_validate({"questions": [asked]})
    with pytest.raises(ValidationError, match="sentence"):
        facts.schema(5, 3).model_validate({"facts": [{"sentence": number, "statement": "It was built."}]})


class Recorder:
    """Stands at the protocol: keeps what was asked and answers with one text."""

    role, identity = "writer", "recorder"

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[list[Message]] = []

    async def ask(self, messages: Any, parse: Any, **_: Any) -> Any:
        self.asked.append(list(messages))
        try:
            return Parsed(parse(self.text), Answer(self.text, "stop", Usage(), "key", self.identity), ("key",))
        except ValueError as error:
            raise Reject("invalid answer", str(error)) from error

    async def structured(self, messages: Any, schema: Any, **options: Any) -> Any:
        return await self.ask(messages, schema.model_validate_json, **options)


@pytest.mark.parametrize(
    ("language", "named"), [(None, "English"), ("de", "German"), ("french", "French"), ("Welsh", "Welsh")]
)
async def test_the_language_reaches_every_prompt(language: str | None, named: str) -> None:
    chunk = chunk_of()
    for kind, ask in [(k, a) for k in RUN for a in ("structured", "line")]:
        recorder = Recorder("")
        config = STAGES[kind][0].config(kind=kind, model="writer", ask=ask, language=language)  # type: ignore[call-arg]
        with pytest.raises(Reject):
            await RUN[kind](config, chunk, Context(recorder, chunk))  # type: ignore[arg-type,operator]
        assert recorder.asked and all(f"Write in: {named}" in asked[-1].content for asked in recorder.asked)
        assert all("The Varn Lighthouse > History" in asked[-1].content for asked in recorder.asked)


async def test_a_line_that_fails_costs_only_itself() -> None:
    chunk = chunk_of()
    context = Context(Recorder("Who is Edda Moor of the lighthouse?"), chunk)  # type: ignore[arg-type]
    samples = await qa.run(QaConfig(kind="generate.qa", model="writer", ask="line", per_chunk=9), chunk, context)
    assert samples and "Edda Moor" not in {sample.answer for sample in samples}
    assert context.counts["lines with invalid answer"] >= 1


async def test_fewer_questions_than_sentences_are_of_all_of_the_chunk() -> None:
    chunk = chunk_of()
    said = [sentence.text for sentence in source_of(chunk, Context(Recorder(""), chunk)).sentences]  # type: ignore[arg-type]

    async def asked(per_chunk: int) -> list[int]:
        recorder = Recorder("")
        config = QaConfig(kind="generate.qa", model="writer", ask="line", per_chunk=per_chunk)
        with pytest.raises(Reject, match="no usable question"):
            await qa.run(config, chunk, Context(recorder, chunk))  # type: ignore[arg-type]
        shown = [messages[-1].content for messages in recorder.asked]
        return [next(n for n, text in enumerate(said) if f"Sentence: {text}" in each) for each in shown]

    every = list(dict.fromkeys(await asked(64)))
    assert len(every) >= 3 and await asked(1) == [every[len(every) // 2]]
    some = await asked(len(every) - 1)
    assert some == sorted(some) and some[0] == every[0] and some[-1] == every[-1] and len(set(some)) == len(every) - 1


async def test_rewritings_of_a_whole_chunk_and_of_its_sentences() -> None:
    chunk = chunk_of()
    text = (
        "1640 is when the Salt Court began, Thursdays are when it meets, and the library of Varn has 912 maps in it. "
    )
    whole = RephraseConfig(kind="generate.rephrase", model="writer", styles=["list"])
    (sample,) = await rephrase.run(whole, chunk, Context(Recorder(text * 2), chunk))  # type: ignore[arg-type]
    assert sample.quotes[0].text == chunk.text and sample.kind == "rephrase" and sample.form == "text"
    lines = whole.model_copy(update={"ask": "line"})
    samples = await rephrase.run(lines, chunk, Context(Recorder(text), chunk))  # type: ignore[arg-type]
    assert samples and all(len(sample.quotes) == 1 for sample in samples)


@pytest.mark.parametrize(
    "text", ["", "Too short.", "The tower of Varn is 41 metres tall and stands on a rock.", "word " * 90]
)
def test_copies_and_empty_rewritings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="that is"):
        check_rewriting(text, source="The tower of Varn is 41 metres tall and stands on a rock.")


async def test_questions_are_made_to_stand_alone() -> None:
    chunk = chunk_of()
    source = source_of(chunk, Context(None, chunk))
    where = {"sentence": source.sentence(2), "source": source, "answer": "41 metres"}
    assert check_question("How tall is the tower of Varn?", **where) == "How tall is the tower of Varn?"
    assert check_question("How tall is that?", **where) == "The Varn Lighthouse, History: How tall is that?"
    for bad in (
        "How tall is it?",
        "How tall is the tower of Varn, from this text?",
        "Is the Varn tower 41 metres tall?",
        "Which height of Varn's tower is in the second sentence?",
        "The tower of Varn is ____ metres ____.",
    ):
        with pytest.raises(ValueError, match=r"by name|do not speak|away|one gap"):
            check_question(bad, **where)


@pytest.mark.parametrize(
    "raw", ['"Who?"', "Question: Who?", "1. Who?", "\n\n- Who?\nmore", "```\nWho?\n```", "**Q1:** Who?"]
)
def test_one_line_is_found_in_what_models_write(raw: str) -> None:
    assert one_line(raw) == "Who?"


def test_a_record_without_a_chunk_is_a_reject() -> None:
    orphan: Record = Chunk(
        path="a", title="", text="# Head", start=0, end=6, sentences=((0, 6),), tokens=2, language="en"
    )
    with pytest.raises(Reject, match="no sentence"):
        source_of(orphan, Context(None))


@pytest.mark.parametrize(
    "options", [{"ways": ["request"]}, {"ask": "line", "ways": ["fill"]}, {"wordings": 2}, {"ways": ["direct"] * 2}]
)
def test_options_that_would_do_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        QaConfig(kind="generate.qa", model="writer", **options)


def test_a_question_in_a_script_without_spaces_is_as_long_as_what_it_says() -> None:
    context = Context(None, chunk_of())
    source = source_of(chunk_of(), context)
    made = check_question("谁建了这座灯塔？", answer="摩尔", sentence=source.sentence(1), source=source, mark=True)
    assert made.endswith("谁建了这座灯塔？")
    with pytest.raises(ValueError, match="gives the answer"):
        check_question("摩尔建了这座灯塔吗？", answer="摩尔", sentence=source.sentence(1), source=source, mark=True)
    with pytest.raises(ValueError, match="one question"):
        check_question("Who?", answer="x", sentence=source.sentence(1), source=source)


def test_every_prompt_file_is_named_by_a_kind_and_asks_for_a_language() -> None:
    named = {name for parts in STAGES.values() for part in parts for name in part.prompts}
    assert named == {path.stem for path in PROMPTS.glob("*.md")}
    silent = {name for name in named if "language" not in Context(None).prompt(name).names}
    assert silent == {"label_text", "recall_proof", "recall_reply"}  # they choose one of few words and write nothing
