"""Texts to read: which entities and strategies are written about, what a text must be, and what it rests on."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.generate.conftest import DOCUMENT, PROMPTS, TEXT, Context, chunk_of
from tests.generate.test_writers import Recorder

from gristmill.core.ask import Model
from gristmill.core.errors import Reject
from gristmill.core.prompt import read_prompt
from gristmill.core.records import Block, Chunk, Document, Draft, Sample
from gristmill.curate import filter as gate
from gristmill.curate import ground
from gristmill.curate.stages import FilterConfig, GroundConfig
from gristmill.generate.pretrain import active_reading, entigraph
from gristmill.generate.pretrain.reading import as_chunk, naming, passages, shown
from gristmill.generate.pretrain.stages import ActiveReadingConfig, EntigraphConfig
from gristmill.generate.source import source_of
from gristmill.generate.wording import check_prose

NOTE = (
    "Rock and keeper belong together at Varn: upon the Gull's Table rises the 41 metres of its lighthouse, and there "
    "Tam Hale was the first to kindle a lamp, in May of 1822. Edda Moor had needed the years from 1818 on to raise it."
)


def enti(**options: Any) -> EntigraphConfig:
    return EntigraphConfig(kind="generate.entigraph", model="writer", **{"ask": "line", **options})


def active(**options: Any) -> ActiveReadingConfig:
    return ActiveReadingConfig(kind="generate.active_reading", model="writer", **{"ask": "line", **options})


async def groups(config: EntigraphConfig, record: Chunk | Document, model: Any = None) -> list[Any]:
    drafts = await entigraph.entities(config, record, Context(model or Recorder(""), record))
    assert all(draft.parents == (record.id,) for draft in drafts)
    return [draft.data["entities"] for draft in drafts]


async def test_names_are_found_by_code_and_a_larger_cap_keeps_what_a_smaller_one_drew() -> None:
    few, many = await groups(enti(pairs=3, triples=1), chunk_of()), await groups(enti(pairs=50, triples=50), chunk_of())
    assert [len(group) for group in few] == [2, 2, 2, 3]
    assert [group for group in many if len(group) == 2][:3] == few[:3]
    named = {name for group in many for name in group}
    assert {"Edda Moor", "Tam Hale", "Salt Court", "Varn"} <= named and all(name in TEXT for name in named)
    assert len({frozenset(group) for group in many}) == len(many)


async def test_parts_of_a_name_are_not_connected_with_it() -> None:
    text = "The Gull Rock of Varn is a rock. Varn Harbour lies in Varn, beside the Gull Rock. Edda Moor lives in Varn."
    for group in await groups(enti(pairs=50, triples=50), chunk_of(text)):
        assert not any(one in other for one in group for other in group if one != other)


async def test_a_piece_that_names_one_thing_is_a_reject() -> None:
    with pytest.raises(Reject, match="fewer than two"):
        await groups(enti(), chunk_of("The lamp of Varn is lit every night and seen far out at sea."))


@pytest.mark.parametrize("record", [chunk_of(), DOCUMENT], ids=["chunk", "document"])
async def test_entities_of_a_model_are_those_that_the_source_holds(record: Chunk | Document) -> None:
    said = Recorder('{"entities": ["Edda Moor", "salt court", "Edda Moor", "Atlantis", "Tam Hale"]}')
    context = Context(said, record)  # type: ignore[arg-type]
    drafts = await entigraph.entities(enti(ask="structured", pairs=9, triples=0), record, context)
    assert {name for draft in drafts for name in draft.data["entities"]} == {"Edda Moor", "salt court", "Tam Hale"}  # type: ignore[union-attr]
    assert context.counts["entities that are not in the source"] == 1
    assert all(draft.origin and draft.origin.calls for draft in drafts) and len(drafts) == 3


async def test_a_long_document_is_asked_about_in_stretches() -> None:
    long = DOCUMENT.model_copy(update={"text": " ".join(f"{TEXT} Year {n} passed." for n in range(12)), "pages": ()})
    said = Recorder('{"entities": ["Edda Moor", "Tam Hale"]}')
    await groups(enti(ask="structured", passage=1000, triples=0), long, said)
    assert len(said.asked) >= 4 and all(len(asked[-1].content) < 1300 for asked in said.asked)


def test_a_document_without_spaces_has_sentences_too() -> None:
    text = "白塔守卫着奥雷尔湾。灯里烧的是菜籽油！「真的吗？」守塔人每逢新月轮换。"
    chunk = as_chunk(DOCUMENT.model_copy(update={"text": text, "language": "zh", "pages": ()}))
    said = [text[start:end] for start, end in chunk.sentences]
    assert said == ["白塔守卫着奥雷尔湾。", "灯里烧的是菜籽油！", "「真的吗？」", "守塔人每逢新月轮换。"]


class Faltering(Recorder):
    """Gives no valid answer on what speaks of year 3."""

    async def structured(self, messages: Any, schema: Any, **options: Any) -> Any:
        if "Year 3 passed" in messages[-1].content:
            raise Reject("invalid answer")
        return await super().structured(messages, schema, **options)


async def test_a_stretch_that_a_model_cannot_handle_does_not_cost_the_document() -> None:
    said = Faltering('{"entities": ["Edda Moor", "Tam Hale"], "strategies": ["retell"]}')
    long = DOCUMENT.model_copy(update={"text": " ".join(f"{TEXT} Year {n} passed." for n in range(12)), "pages": ()})
    for part, config in (
        (entigraph.entities, enti(ask="structured", passage=1000)),
        (active_reading.strategies, active(ask="structured", passage=1000)),
    ):
        context = Context(said, long)  # type: ignore[arg-type]
        drafts = await part(config, long, context)  # type: ignore[operator]
        assert drafts and context.counts["stretches with invalid answer"] == 1
        short = chunk_of(f"{TEXT} Year 3 passed.")
        with pytest.raises(Reject, match="invalid answer"):
            await part(config, short, Context(said, short))  # type: ignore[arg-type, operator]


async def text_on(names: list[str], answer: str, *, of: Chunk | Document, **options: Any) -> Sample:
    draft = Draft(kind="entigraph", data={"entities": list(names)}, parents=(of.id,))
    (sample,) = await entigraph.run(enti(**options), draft, Context(Recorder(answer), of, draft))  # type: ignore[arg-type]
    return sample


@pytest.mark.parametrize("of", [chunk_of(), DOCUMENT], ids=["chunk", "document"])
async def test_a_text_rests_on_the_sentences_that_name_its_entities(of: Chunk | Document) -> None:
    sample = await text_on(["Tam Hale", "Edda Moor"], NOTE, of=of)
    assert (sample.form, sample.kind, sample.text, sample.train) == ("text", "entigraph", NOTE, True)
    assert len(sample.quotes) == 2 and all(re.search("Tam Hale|Edda Moor", quote.text) for quote in sample.quotes)
    assert all(DOCUMENT.text[quote.start : quote.end] == quote.text for quote in sample.quotes)
    assert sample.origin and sample.origin.prompt and sample.origin.prompt.startswith("pretrain_entigraph@")


async def test_a_text_that_leaves_one_out_is_refused_but_not_where_names_may_be_spelled_otherwise() -> None:
    with pytest.raises(Reject, match="invalid answer"):
        await text_on(["Tam Hale", "Salt Court"], NOTE, of=chunk_of())
    assert (await text_on(["Tam Hale", "Salt Court"], NOTE, of=chunk_of(), language="ru")).language == "ru"


async def test_a_text_may_begin_with_where_it_stands_and_its_writer_be_told_more() -> None:
    recorder, chunk = Recorder(NOTE), chunk_of()
    draft = Draft(kind="entigraph", data={"entities": ["Tam Hale", "Varn"]}, parents=(chunk.id,))
    config = enti(context=True, about="Coasts of the north")
    (sample,) = await entigraph.run(config, draft, Context(recorder, chunk, draft))  # type: ignore[arg-type]
    assert sample.text == f"The Varn Lighthouse > History\n\n{NOTE}"
    assert "Topic: Coasts of the north > The Varn Lighthouse > History\n" in recorder.asked[0][-1].content


@pytest.mark.parametrize("name", ["pretrain_entigraph", "pretrain_active_reading"])
@pytest.mark.parametrize("example", [0, 1])
async def test_the_worked_examples_would_pass_the_gates_themselves(name: str, example: int) -> None:
    asked, answer = read_prompt(name, PROMPTS / f"{name}.md").examples[2 * example :][:2]
    topic, passage = re.findall("(?:Topic|Passage): (.*)", asked)
    title, *headings = topic.split(" > ")
    chunk = chunk_of(passage, start=0).model_copy(update={"title": title, "headings": tuple(headings), "parents": ()})
    sample = await text_on(re.findall("- (.*)", asked) or [title.split()[-1]], answer, of=chunk)
    sample = sample.model_copy(update={"parents": (chunk.id,), "origin": None})
    context: Any = Context(None, chunk)
    assert await ground.run(GroundConfig(kind="curate.ground"), sample, context) == [sample]
    assert await gate.run(FilterConfig(kind="curate.filter"), sample, context) == [sample]


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "Tam Hale.",
        TEXT,
        f"{NOTE} The passage says so.",
        f"{NOTE}\nTopic: something else",
        f"{NOTE}\n@user\nAnd more",
        "The lamp of Varn is old indeed. " * 4,
        "Boats pay, ships pay and trawlers pay "
        + "because the dues are counted in pellins each night, and " * 3
        + "so on.",
    ],
)
def test_what_is_no_text_of_its_own_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"that is|do not speak|alone|again|three times"):
        check_prose(bad, source=TEXT)


def test_a_text_is_taken_out_of_its_fence() -> None:
    assert check_prose(f"```text\n{NOTE}\n```", source=TEXT) == NOTE


async def test_strategies_are_drawn_by_seed_and_record_for_small_writers() -> None:
    more = {"letter": "Write it as a letter to a friend who moves to Varn."}
    chunk, other = chunk_of(), chunk_of(TEXT.replace("912", "913"))
    names: list[list[object]] = []
    for config, record in ((active(more=more), chunk), (active(more=more), chunk), (active(more=more), other)):
        drafts = await active_reading.strategies(config, record, Context(Recorder(""), record))  # type: ignore[arg-type]
        names.append([draft.data["strategy"] for draft in drafts])
    assert names[0] == names[1] != names[2] and all(len(set(each)) == 4 for each in names)
    (only,) = await active_reading.strategies(
        active(strategies=[], more=more),
        chunk,
        Context(Recorder(""), chunk),  # type: ignore[arg-type]
    )
    assert only.data == {"strategy": "letter", "task": more["letter"], "first": 1, "last": 5}


async def test_a_model_chooses_from_the_catalogue_and_makes_up_its_own(model: Model) -> None:
    chunk = chunk_of()
    config = active(ask="structured", per_record=3, own=2)
    drafts = await active_reading.strategies(config, chunk, Context(model, chunk))
    tasks = {str(draft.data["strategy"]): draft.data["task"] for draft in drafts}
    assert tasks and all(
        name.startswith("own ") or task == active_reading.CATALOGUE[name] for name, task in tasks.items()
    )  # type: ignore[index]
    with pytest.raises(ValidationError):
        active_reading.schema(("retell",), 2, 0).model_validate({"strategies": ["sing"]})


def studying(chunk: Chunk | Document, first: int = 1, last: int = 5) -> Draft:
    data = {"strategy": "retell", "task": "Tell it again.", "first": first, "last": last}
    return Draft(kind="active_reading", data=data, parents=(chunk.id,))  # type: ignore[arg-type]


async def test_notes_rest_on_all_that_was_read() -> None:
    chunk, recorder = chunk_of(), Recorder(NOTE)
    for draft, quoted in (
        (studying(chunk), TEXT),
        (studying(chunk, 2, 3), TEXT[TEXT.index("Its") : TEXT.index(" The lib")]),
    ):
        (sample,) = await active_reading.run(active(), draft, Context(recorder, chunk, draft))  # type: ignore[arg-type]
        assert (sample.kind, sample.quotes[0].text, sample.parents) == ("active_reading", quoted, (draft.id,))
        assert f"Passage: {quoted}\nWay to study: Tell it again." in recorder.asked[-1][-1].content


async def test_a_long_document_is_studied_passage_by_passage() -> None:
    long = DOCUMENT.model_copy(update={"text": " ".join(TEXT for _ in range(9)), "pages": ()})
    drafts = await active_reading.strategies(active(passage=800, per_record=2), long, Context(Recorder(""), long))  # type: ignore[arg-type]
    stretches = sorted({(draft.data["first"], draft.data["last"]) for draft in drafts})  # type: ignore[type-var]
    assert [first for first, _ in stretches] == [1, *(last + 1 for _, last in stretches[:-1])]  # type: ignore[operator]
    assert stretches[-1][1] == 45 and len(drafts) == 2 * len(stretches)
    (sample,) = await active_reading.run(active(), drafts[-1], Context(Recorder(NOTE), long, drafts[-1]))  # type: ignore[arg-type]
    assert len(sample.quotes[0].text) <= 800 and long.text.endswith(sample.quotes[0].text)


async def test_a_lone_heading_is_not_studied() -> None:
    chunk = chunk_of("Notes for those who climb it.")
    with pytest.raises(Reject, match="too little to study"):
        await active_reading.strategies(active(), chunk, Context(Recorder(""), chunk))  # type: ignore[arg-type]


@settings(max_examples=60)
@given(st.lists(st.integers(20, 300), min_size=1, max_size=30), st.integers(200, 900))
def test_passages_hold_every_sentence_once_and_stay_within_the_limit(lengths: list[int], limit: int) -> None:
    text = " ".join("a b " + "c" * (length - 5) + "." for length in lengths)
    chunk = chunk_of(text)
    found = passages(source_of(chunk, Context(None, chunk)), limit)
    assert [sentence.number for held in found for sentence in held] == list(range(1, len(lengths) + 1))
    assert all(len(shown(held)) <= max(limit, max(lengths)) for held in found)


@pytest.mark.parametrize("limit", [200, 4000])
def test_each_thing_has_the_sentences_that_name_it_shown(limit: int) -> None:
    dull = " ".join(f"Nothing of note happened in the year {n}." for n in range(1, 30))
    long = chunk_of(
        f"The mill is old. It was built by Edda Moor. {dull} Tam Hale sold it. Edda Moor met Tam Hale in May."
    )
    read = naming(source_of(long, Context(None, long)), ["Tam Hale", "Edda Moor"], limit)
    said = ["The mill is old.", "It was built by Edda Moor.", "Tam Hale sold it.", "Edda Moor met Tam Hale in May."]
    assert [sentence.text for sentence in read] == said
    assert [s.text for s in naming(source_of(long, Context(None, long)), ["Tam Hale", "Edda Moor"], 40)] == said[-1:]


@settings(max_examples=60)
@given(st.text(alphabet="aB .!?\n…」。1#", max_size=200))
def test_the_sentences_of_a_document_are_words_of_it_in_order(text: str) -> None:
    chunk = as_chunk(document_of(text))
    assert [text[a:b] for a, b in chunk.sentences] == [text[a:b].strip() for a, b in chunk.sentences]
    said = "".join(text[a:b] for a, b in chunk.sentences)
    assert "".join(said.split()) == "".join(text.split())


def document_of(text: str) -> Document:
    return Document(path="a", title="", text=text, language="en", media_type="text/plain")


def test_headings_of_a_document_are_no_sentences() -> None:
    text = "# The harbour\n\nThe harbour of Varn is deep.\n\nIt froze in 1740."
    head = Block(kind="heading", start=0, end=13, level=1)
    chunk = as_chunk(document_of(text).model_copy(update={"blocks": (head,)}))
    assert [text[a:b] for a, b in chunk.sentences] == ["The harbour of Varn is deep.", "It froze in 1740."]


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (enti, {"pairs": 0, "triples": 0}),
        (enti, {"entities": 2}),
        (active, {"own": 1}),
        (active, {"strategies": []}),
        (active, {"per_record": 0}),
    ],
)
def test_settings_that_would_write_nothing_are_refused(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        make(**options)


@pytest.mark.parametrize("ask", ["structured", "line"])
async def test_the_language_is_asked_for_in_every_prompt(ask: str) -> None:
    recorder, chunk = Recorder('{"entities": ["Tam Hale", "Varn"], "strategies": ["retell"]}'), chunk_of()
    kinds = (
        (enti(ask=ask, language="de"), entigraph.entities),
        (active(ask=ask, language="de"), active_reading.strategies),
    )
    for config, part in kinds:
        drafts = await part(config, chunk, Context(recorder, chunk))  # type: ignore[operator]
        run = entigraph.run if part is entigraph.entities else active_reading.run
        with suppress(Reject):
            await run(config, drafts[0], Context(recorder, chunk, drafts[0]))  # type: ignore[arg-type]
    assert len(recorder.asked) == (4 if ask == "structured" else 2)
    assert all("Write in: German" in asked[-1].content for asked in recorder.asked)
