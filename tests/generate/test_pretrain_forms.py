"""The same facts in many forms, facts that follow from several sentences, and facts written out."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from pydantic import ValidationError
from tests.generate.conftest import DOCUMENT, PROMPTS, Context, chunk_of
from tests.generate.test_writers import Recorder

from gristmill.core.ask import Model
from gristmill.core.errors import Reject
from gristmill.core.prompt import read_prompt
from gristmill.core.records import Chunk, Fact, Sample
from gristmill.curate import filter as gate
from gristmill.curate import ground
from gristmill.curate.stages import FilterConfig, GroundConfig
from gristmill.generate import facts, passage, rephrase
from gristmill.generate.stages import FactsConfig, PassageConfig, RephraseConfig, Style

STYLES: tuple[Style, ...] = get_args(Style)
LONG = "The Salt Court, first of all, meets on each and every Thursday and has done so since the far-off year of 1640. "


def writing(**options: Any) -> RephraseConfig:
    return RephraseConfig(kind="generate.rephrase", model="writer", **options)


async def rewritten(answer: str, chunk: Chunk | None = None, **options: Any) -> tuple[list[Sample], Recorder]:
    chunk, recorder = chunk or chunk_of(), Recorder(answer)
    return await rephrase.run(writing(**options), chunk, Context(recorder, chunk)), recorder  # type: ignore[arg-type]


@pytest.mark.parametrize("style", STYLES)
async def test_the_worked_example_of_every_style_would_pass_the_gates_itself(style: Style) -> None:
    """What the prompt shows is what code accepts: length, form, no copy, and every name and number grounded."""
    asked, answer = read_prompt(style, PROMPTS / f"rephrase_{style}.md").examples
    topic, text, _ = asked.split("\n")
    title, heading = topic.removeprefix("Topic: ").split(" > ")
    chunk = chunk_of(text, start=0).model_copy(update={"title": title, "headings": (heading,), "parents": ()})
    (sample,), _ = await rewritten(answer, chunk, styles=[style])
    assert sample.text == answer and sample.quotes[0].text == text
    context: Any = Context(None, chunk)
    context.prompts_of = lambda _: ()
    assert await ground.run(GroundConfig(kind="curate.ground"), sample, context) == [sample]
    marked_up = style in ("xml", "json")
    assert await gate.run(FilterConfig(kind="curate.filter", code=not marked_up), sample, context) == [sample]


@pytest.mark.parametrize(
    ("style", "bad"),
    [
        ("json", f'{{"a": "{LONG * 2}"'),
        ("json", json.dumps([LONG, LONG])),
        ("json", "[" * 100_000),
        ("xml", f"<a>{LONG * 2}</b>"),
        ("xml", f'<!DOCTYPE a [<!ENTITY b "c">]><a>{LONG * 2}</a>'),
        ("xml", LONG * 2),
    ],
)
async def test_a_form_that_cannot_be_read_is_refused(style: Style, bad: str) -> None:
    with pytest.raises(Reject, match="no usable rewriting"):
        await rewritten(bad, styles=[style])


@pytest.mark.parametrize("bad", [LONG * 3, f"{LONG}\nTopic: Varn\nWrite in: English", f"{LONG}<|im_end|>"])
async def test_a_rewriting_that_goes_round_or_goes_on_is_refused(bad: str) -> None:
    with pytest.raises(Reject, match="no usable rewriting"):
        await rewritten(bad, styles=["essay"])


async def test_words_count_where_no_spaces_are_written() -> None:
    said = (
        "白塔守卫着奥雷尔湾，一七〇二年由石匠佩尔·阿登完成。灯里烧的是菜籽油，十七海里外都看得见。守塔人每逢新月轮换。"
    )
    chunk = chunk_of("The white tower guards Orrel Bay and was finished in 1702 by the mason Pell Arden. " * 2)
    (sample,), _ = await rewritten(said, chunk, styles=["essay"], language="zh")
    assert (sample.text, sample.language) == (said, "zh")


async def test_some_styles_are_drawn_by_the_records_own_seed() -> None:
    texts = [chunk_of(), chunk_of(), chunk_of("The Salt Court was founded in 1640 and meets every Thursday in Varn.")]
    drawn = []
    for chunk in texts:
        _, recorder = await rewritten(LONG * 2, chunk, styles=list(STYLES), draw=3)
        drawn.append([asked[0].content for asked in recorder.asked])
    assert drawn[0] == drawn[1] != drawn[2] and all(len(set(each)) == 3 for each in drawn)


@pytest.mark.parametrize("ask", ["structured", "line"])
async def test_a_rewriting_may_begin_with_where_it_stands_and_its_writer_be_told_more(ask: str) -> None:
    styles = {"styles": ["essay"]} if ask == "structured" else {}
    samples, recorder = await rewritten(LONG * 2, ask=ask, context=True, about="Northern coasts", **styles)
    assert all(sample.text.startswith("The Varn Lighthouse > History\n\nThe Salt Court") for sample in samples)
    assert all("Topic: Northern coasts > The Varn Lighthouse" in asked[-1].content for asked in recorder.asked)


@pytest.mark.parametrize(
    "options",
    [
        {"draw": 3},
        {"draw": 1, "ask": "line"},
        {"styles": ["list"], "ask": "line"},
        {"styles": ["list", "list"]},
        {"styles": []},
    ],
)
def test_settings_that_would_do_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        writing(**options)


def inferring(**options: Any) -> FactsConfig:
    return FactsConfig(kind="generate.facts", model="writer", inferred=True, **options)


async def inferred(answer: Any, **options: Any) -> tuple[list[Fact], Context]:
    chunk = chunk_of()
    context = Context(Recorder(answer if isinstance(answer, str) else json.dumps({"facts": answer})), chunk)  # type: ignore[arg-type]
    return await facts.run(inferring(**options), chunk, context), context


async def test_an_inferred_fact_rests_on_all_the_sentences_it_follows_from() -> None:
    said = [
        {"sentences": [3, 1], "statement": "Tam Hale was the first keeper of the lighthouse that Edda Moor built."},
        {"sentences": [2, 3], "statement": "The tower of the lighthouse is 41 metres tall."},
        {"sentences": [1, 1], "statement": "Edda Moor, an engineer, built the lighthouse at Varn."},
        {"sentences": [1, 2], "statement": "It is tall."},
        {"sentences": [1, 3], "statement": "Edda Moor built the lighthouse. Its first keeper was Tam Hale."},
        {"sentences": [1, 2], "statement": "The engineer Edda Moor of the lighthouse at Varn was 41."},
    ]
    (fact,), context = await inferred(said)
    assert fact.marks == {"inferred": True} and fact.statement == said[0]["statement"]
    assert fact.quote.text.startswith("The lighthouse at Varn") and fact.quote.text.endswith("on 3 May 1822.")
    assert DOCUMENT.text[fact.quote.start : fact.quote.end] == fact.quote.text
    assert context.counts == {"facts that do not take several sentences": 4, "facts that do not stand alone": 1}


async def test_in_another_language_an_inferred_fact_is_left_to_its_reader() -> None:
    said = [{"sentences": [1, 3], "statement": "Der erste Wärter diente im Turm, den Edda Moor baute."}]
    (fact,), _ = await inferred(said, language="de")
    assert fact.language == "de"


async def test_small_writers_are_asked_about_pairs_that_belong_together() -> None:
    made, context = await inferred("The keeper Tam Hale lit the lamp in a tower 41 metres tall.", ask="line")
    assert [fact.quote.text.count(".") for fact in made] == [2] and made[0].marks == {"inferred": True}
    assert context.counts["lines with invalid answer"] >= 3  # the other pairs are not what that follows from


@pytest.mark.parametrize("inferred", [False, True])
async def test_facts_of_a_long_chunk_are_of_all_its_parts_and_stand_in_its_order(inferred: bool) -> None:
    """One line a call: fewer than there are sentences are not the first ones."""
    chunk = chunk_of(" ".join(f"The mill number {n} has {n + 30} wheels and one miller." for n in range(12)), start=0)
    told, pieces = Recorder("The mill of Varn has one miller and many wheels."), 11 if inferred else 12
    config = FactsConfig(
        kind="generate.facts", model="writer", ask="line", inferred=inferred, language="de", per_chunk=4
    )
    made = await facts.run(config, chunk, Context(told, chunk))  # type: ignore[arg-type]
    numbers = [int(fact.quote.text.split()[3]) for fact in made]
    assert len(numbers) == 4
    assert all(at * pieces // 4 <= number < (at + 1) * pieces // 4 for at, number in enumerate(numbers))
    config = config.model_copy(update={"per_chunk": pieces})
    assert len(await facts.run(config, chunk, Context(told, chunk))) == pieces  # type: ignore[arg-type]


async def test_nothing_follows_from_one_sentence() -> None:
    chunk = chunk_of("The library of Varn holds 912 maps.")
    with pytest.raises(Reject, match="one sentence"):
        await facts.run(inferring(), chunk, Context(Recorder(""), chunk))  # type: ignore[arg-type]


@pytest.mark.parametrize("numbers", [[1], [0, 2], [1, 6], [1, 2, 3, 4, 5]])
def test_a_conclusion_names_two_to_four_sentences_that_exist(numbers: list[int]) -> None:
    with pytest.raises(ValidationError, match="sentences"):
        facts.schema(5, 3, inferred=True).model_validate(
            {"facts": [{"sentences": numbers, "statement": "Tam Hale was the keeper."}]}
        )


async def test_each_fact_is_written_out_once_and_says_of_which_sort_it_is(model: Model) -> None:
    chunk = chunk_of()
    stated = await facts.run(FactsConfig(kind="generate.facts", model="writer"), chunk, Context(model, chunk))
    (concluded,), _ = await inferred(
        [{"sentences": [1, 3], "statement": "Tam Hale was the first keeper of the lighthouse that Edda Moor built."}]
    )
    read = PassageConfig(kind="generate.passage", context=False)
    written = [
        sample for fact in (*stated, concluded) for sample in await passage.run(read, fact, Context(None, chunk, fact))
    ]
    assert [sample.text for sample in written] == [fact.statement for fact in (*stated, concluded)]
    assert [sample.kind for sample in written] == ["fact"] * len(stated) + ["inferred"]
    assert all(sample.quotes == (fact.quote,) for sample, fact in zip(written, (*stated, concluded), strict=True))
    (headed,) = await passage.run(PassageConfig(kind="generate.passage"), concluded, Context(None, chunk, concluded))
    assert headed.text == f"The Varn Lighthouse > History\n\n{concluded.statement}"
