"""Variants of labelled rows: what must stay stays to the byte, what must change changes, and who is asked about it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.fakes.fixtures import fake_server
from tests.generate.conftest import Context
from tests.runs.project import Project

from gristmill.core.ask import Answer, Parsed, Usage
from gristmill.core.errors import Reject
from gristmill.core.records import Message, Sample
from gristmill.generate.augment import aspects, augment
from gristmill.generate.augment.likeness import changed, likeness, plain
from gristmill.generate.augment.stages import AspectsConfig, AugmentConfig

TEXT = "The food was tasty and came quickly to our table by the window."
LABELS = ["positive", "neutral", "negative"]
NEAR = "The food was tasty and came quickly to our seats by the old window."
OTHER = "Quickly served at our table by the window, the food tasted good."
FAR = "A food strike paralysed the railway stations of the capital."
FLIPPED = "The food was bland and came slowly to our table by the window."


def row(text: str = TEXT, aspect: str = "food", **more: Any) -> Sample:
    at = text.index(aspect)
    more = {"label": "positive", "marks": {"split": "train", "line": 3}, "spans": ((at, at + len(aspect)),)} | more
    return Sample(form="labelled", kind="review", text=text, **more)


def config(*ways: str, **more: Any) -> AugmentConfig:
    return AugmentConfig(kind="generate.augment", model="writer", ways=list(ways), labels=LABELS, **more)


class Scripted:
    """Stands at the protocol: answers each prompt by its first words; keeps what was asked."""

    role, identity = "writer", "scripted"

    def __init__(self, verdict: dict[str, str] | Callable[[str], dict[str, str]] | None = None, **said: Any) -> None:
        self.verdict = verdict or {"label": "positive", "fits": "yes"}
        self.said = said
        self.asked: list[tuple[str, str]] = []

    def _answer(self, messages: list[Message]) -> str:
        first, last = messages[0].content, messages[-1].content
        if first.startswith(("You compare", "You judge")):
            self.asked.append(("judge", last))
            given = self.verdict(last) if callable(self.verdict) else self.verdict
            return orjson.dumps(given).decode()
        name = {
            "You say short": "texts", "You say a te": "line", "You name ": "terms", "You change": "flips",
            "You translate": "translated", "You find": "aspects",
        }[next(k for k in ("You say short", "You say a te", "You name ", "You change", "You translate", "You find")
               if first.startswith(k))]  # fmt: skip
        self.asked.append((name, last))
        said = self.said[name]
        if callable(said):
            return str(said(last))
        if name in ("line", "translated"):
            return str(said.pop(0))
        return orjson.dumps({"texts" if name == "flips" else name: said}).decode()

    async def ask(self, messages: Any, parse: Any, **_: Any) -> Any:
        text, key = self._answer(list(messages)), f"call{len(self.asked)}"
        try:
            return Parsed(parse(text), Answer(text, "stop", Usage(), key, self.identity), (key,))
        except ValueError as error:
            raise Reject("invalid answer", str(error)) from error

    async def structured(self, messages: Any, schema: Any, **options: Any) -> Any:
        return await self.ask(messages, schema.model_validate_json, **options)

    def judged(self) -> int:
        return sum(name == "judge" for name, _ in self.asked)


async def made(writer: Scripted, wanted: AugmentConfig, sample: Sample | None = None) -> tuple[list[Sample], Context]:
    sample = sample or row()
    context = Context(writer, sample)  # type: ignore[arg-type]
    return await augment.run(wanted, sample, context), context


def span_text(sample: Sample) -> str:
    return sample.text[slice(*sample.spans[0])]


async def test_cda_keeps_aspect_and_label_and_changes_the_rest() -> None:
    writer = Scripted(texts=[OTHER, "We waited long for tasty things.", "The food, ah, the food was tasty here."])
    [variant], context = await made(writer, config("cda", variants=3))
    assert variant.text == OTHER and span_text(variant) == "food" and variant.label == "positive"
    assert variant.parents == (row().id,) and variant.marks["variant_of"] == row().id
    assert variant.marks["split"] == "train" and "line" not in variant.marks and variant.marks["augmented"] == "cda"
    assert variant.marks["changed"] >= 0.2 and 0.3 <= variant.marks["likeness"] <= 1  # type: ignore[operator]
    assert variant.origin and variant.origin.prompt and variant.origin.prompt.startswith("augment_cda@")
    assert variant.origin.calls == ("call1", "call2")  # what was written, and the verdict
    assert context.counts == {"cda: aspect gone": 1, "cda: aspect more than once": 1}


async def test_a_variant_that_keeps_only_part_of_what_must_stay_is_none() -> None:
    """However alike the rest is: there is no mean of shares that could make up for it."""
    with pytest.raises(Reject, match="no variant passed"):
        await made(Scripted(texts=["The foods were tasty and came quickly to our table by the window."]), config("cda"))


async def test_ada_changes_the_aspect_and_not_one_other_byte() -> None:
    writer = Scripted(terms=["soup", "Food", "fish pie"])
    variants, context = await made(writer, config("ada", variants=3))
    assert [span_text(v) for v in variants] == ["soup", "fish pie"]
    for variant in variants:
        start, end = variant.spans[0]
        assert variant.text[:start] + variant.text[end:] == TEXT[:4] + TEXT[8:]
    assert context.counts == {"ada: said already": 1}


async def test_an_aspect_stands_among_others_where_no_spaces_are_written() -> None:
    text = "房间很干净，早餐也不错。"
    variants, _ = await made(Scripted(terms=["浴室", "早餐"]), config("ada"), row(text, "房间", language="zh"))
    assert [(v.text, span_text(v)) for v in variants] == [("浴室很干净，早餐也不错。", "浴室")]


async def test_an_aspect_that_the_text_names_already_is_no_new_one_and_the_likeness_told_is_the_measured_one() -> None:
    variants, context = await made(Scripted(terms=["window", "brass band"]), config("ada", variants=2))
    assert [span_text(v) for v in variants] == ["brass band"]
    assert context.counts == {"ada: aspect more than once": 1}
    assert variants[0].marks["likeness"] == round(likeness("food", "brass band"), 3) < 0.3


async def test_cada_judges_no_more_aspects_than_it_gives() -> None:
    writer = Scripted(texts=[OTHER], terms=["soup", "fish pie", "salad"])
    variants, _ = await made(writer, config("cada", variants=3))
    assert len(variants) == 1 and writer.judged() == 2  # the new context, and one aspect in it


async def test_cada_gives_cdas_text_another_aspect_and_is_judged_by_the_first_label() -> None:
    writer = Scripted(texts=[OTHER], terms=["soup"])
    variants, _ = await made(writer, config("cada"))
    [variant] = variants
    assert variant.text == OTHER.replace("food", "soup") and variant.marks["augmented"] == "cada"
    assert variant.label == "positive" and variant.origin and len(variant.origin.calls) == 4
    both, _ = await made(again := Scripted(texts=[OTHER], terms=["soup"]), config("cda", "ada", "cada"))
    assert sorted(v.marks["augmented"] for v in both) == ["ada", "cada", "cda"]  # type: ignore[type-var]
    assert [name for name, _ in again.asked].count("texts") == 1  # CDA's answer is paid for once


async def test_a_judge_is_asked_only_where_likeness_does_not_tell() -> None:
    sure = Scripted(texts=[NEAR])
    await made(sure, config("cda", change=0.1, band=(0.3, 0.7)))
    assert sure.judged() == 0
    far = Scripted(texts=[FAR])
    with pytest.raises(Reject):
        await made(far, config("cda", band=(0.5, 0.9)))
    assert far.judged() == 0
    between = Scripted(texts=[NEAR])
    await made(between, config("cda", change=0.1, band=(0.3, 1.1)))
    assert between.judged() == 1


@pytest.mark.parametrize(
    ("verdict", "why"),
    [
        ({"label": "negative", "fits": "yes"}, "cda: judged another label"),
        ({"label": "unclear", "fits": "yes"}, "cda: judged another label"),
        ({"label": "positive", "fits": "no"}, "cda: judged unfit"),
        ({"label": "0.9, on a scale of 0.0 to 1.0", "fits": "8/10"}, "cda: judge's invalid answer"),
    ],
)
async def test_a_verdict_is_a_word_of_the_schema_and_no_verdict_is_no_pass(verdict: dict[str, str], why: str) -> None:
    sample, writer = row(), Scripted(verdict, texts=[OTHER])
    context = Context(writer, sample)  # type: ignore[arg-type]
    with pytest.raises(Reject, match="no variant passed"):
        await augment.run(config("cda"), sample, context)
    assert context.counts == {why: 1}


async def test_a_counterfactual_has_the_label_that_was_wanted_and_is_always_judged() -> None:
    def verdict(asked: str) -> dict[str, str]:
        return {"label": "negative" if "bland" in asked else "neutral", "fits": "yes"}

    writer = Scripted(verdict, flips=[FLIPPED])
    variants, context = await made(writer, config("counterfactual", band=(0.3, 0.5)))
    assert [(v.label, span_text(v)) for v in variants] == [("negative", "food")]
    assert writer.judged() == 2 and context.counts == {"counterfactual: judged another label": 1}
    assert {last.splitlines()[-2] for name, last in writer.asked if name == "flips"} == {
        "Now: positive. Wanted: neutral.", "Now: positive. Wanted: negative.",
    }  # fmt: skip


async def test_a_counterfactual_may_change_one_word_but_not_none() -> None:
    """The method asks for as few edits as turn the label; the share that a new context changes is not its bound."""
    one_word, none = TEXT.replace("tasty", "bland"), TEXT.replace("tasty and", "tasty, and")
    writer = Scripted({"label": "negative", "fits": "yes"}, flips=[one_word, none])
    variants, context = await made(writer, config("counterfactual", band=(0.3, 1.1)))
    assert [(v.text, v.label) for v in variants] == [(one_word, "negative")]
    assert 0 < variants[0].marks["changed"] < 0.2  # type: ignore[operator]
    assert context.counts["counterfactual: said already"] >= 1
    with pytest.raises(Reject):
        await made(Scripted(texts=[one_word]), config("cda"))  # a new context it is not
    with pytest.raises(ValidationError, match="`change` belongs to"):
        config("counterfactual", change=0.1)


async def test_back_translation_goes_there_and_back_and_names_the_aspect() -> None:
    writer = Scripted(translated=["La nourriture était bonne.", OTHER])
    [variant], _ = await made(writer, config("back_translation", pivots=["fr"]))
    assert variant.text == OTHER and variant.marks["augmented"] == "back_translation"
    assert [("food" in last, "nourriture" in last) for name, last in writer.asked if name == "translated"] == [
        (True, False), (True, True),
    ]  # fmt: skip


async def test_siblings_and_the_row_itself_are_no_variants() -> None:
    shout = OTHER.upper().replace("FOOD", "food")
    variants, context = await made(Scripted(texts=[OTHER, shout, TEXT]), config("cda", variants=3))
    assert [v.text for v in variants] == [OTHER]
    assert context.counts == {"cda: said already": 2}


async def test_one_line_a_call_for_small_models() -> None:
    writer = Scripted(line=[OTHER, "It was good."])
    [variant], context = await made(writer, config("cda", ask="line", variants=2))
    assert variant.text == OTHER and context.counts == {"cda: aspect gone": 1}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"marks": {"split": "test"}}, "held out"),
        ({"marks": {"split": "validation"}}, "held out"),
        ({"marks": {}}, "no split"),
        ({"label": "angry"}, "unknown label"),
        ({"spans": ((4, 8), (13, 18))}, "several aspects"),
    ],
)
async def test_only_training_rows_of_known_labels_have_variants(more: dict[str, Any], why: str) -> None:
    writer = Scripted(texts=[OTHER])
    with pytest.raises(Reject, match=why):
        await made(writer, config("cda"), row(**more))
    assert writer.asked == []


async def test_a_row_without_an_aspect_is_about_all_of_its_text() -> None:
    writer = Scripted(texts=[OTHER.replace("food", "meal")], terms=["soup"])
    variants, context = await made(writer, config("cda", "ada"), row(spans=()))
    assert [(v.marks["augmented"], v.spans) for v in variants] == [("cda", ())]
    assert context.counts == {"ada: no aspect": 1}


async def test_a_share_is_drawn_by_seed() -> None:
    drawn = []
    for number in range(40):
        sample = row(parents=(str(number),))
        try:
            drawn += (await made(Scripted(texts=[OTHER]), config("cda", share=0.5), sample))[0]
        except Reject as reject:
            assert reject.reason == "not drawn"
    assert 10 < len(drawn) < 30


def test_what_does_not_fit_together_is_refused() -> None:
    for more in ({"pivots": ["de"]}, {"band": (0.9, 0.3)}):
        with pytest.raises(ValidationError):
            config("cda", **more)
    with pytest.raises(ValidationError):
        config("cda", "cda")


@pytest.mark.parametrize("language", [None, "de"])
async def test_the_language_reaches_every_prompt(language: str | None) -> None:
    seen: list[str] = []

    class Listening(Scripted):
        def _answer(self, messages: list[Message]) -> str:
            seen.append(messages[0].content)
            return super()._answer(messages)

    ways = ("cda", "ada", "counterfactual", "back_translation")
    for ask in ("structured", "line"):
        writer = Listening(texts=[OTHER], terms=["soup"], flips=[FLIPPED], translated=["x", OTHER], line=[OTHER, OTHER])
        with_terms = config(*ways, ask=ask, language=language, variants=1)
        try:
            await made(writer, with_terms)
        except Reject:
            continue
    named = "German" if language else "English"
    written = [text for text in seen if not text.startswith(("You compare", "You judge", "You translate"))]
    assert len(written) >= 4 and all(f"Write in: {named}" in text for text in written)
    assert all(named in text for text in seen if text.startswith(("You compare", "You judge")))


async def test_aspects_are_found_in_the_text_by_code() -> None:
    text = Sample(form="text", kind="review", text="The soup was cold but the soup bowl and the view were lovely.")
    found = [("view", "positive"), ("soup bowl", "positive"), ("soup", "negative"), ("service", "negative")]
    writer = Scripted(aspects=[{"term": term, "label": label} for term, label in found])
    context = Context(writer, text)  # type: ignore[arg-type]
    wanted = AspectsConfig(kind="generate.aspects", model="writer", labels=LABELS)
    rows = await aspects.run(wanted, text, context)
    assert [(span_text(r), r.label) for r in rows] == [("view", "positive"), ("soup bowl", "positive")]
    assert context.counts == {"aspects more than once in the text": 1, "aspects not in the text": 1}


async def test_an_aspect_with_two_labels_is_no_row() -> None:
    text = Sample(form="text", kind="review", text="The soup was cold, the view was lovely.")
    found = [("soup", "negative"), ("view", "positive"), ("soup", "positive"), ("view", "positive")]
    context = Context(Scripted(aspects=[{"term": t, "label": label} for t, label in found]), text)  # type: ignore[arg-type]
    rows = await aspects.run(AspectsConfig(kind="generate.aspects", model="writer", labels=LABELS), text, context)
    assert [(span_text(r), r.label) for r in rows] == [("view", "positive")]
    assert context.counts == {"aspects with two labels": 1}


@settings(max_examples=60, deadline=None)
@given(one=st.text(alphabet="ab c.", max_size=24), other=st.text(alphabet="ab c.", max_size=24))
def test_the_edit_distance_is_one(one: str, other: str) -> None:
    assert changed(one, other) == changed(other, one) and 0 <= changed(one, other) <= 1
    assert (changed(one, other) == 0) == (plain(one) == plain(other))
    assert changed(f"x {one} y", f"x {other} y") <= changed(one, other)


def test_likeness_tells_another_topic() -> None:
    assert likeness(TEXT, OTHER) > 0.5 > 0.3 > likeness(TEXT, "Interest rates rose again in March.")


def test_rows_of_a_file_to_variants_of_a_file_within_the_budget_and_nothing_paid_twice(tmp_path: Path) -> None:
    """By the front door: spans are read and written, test rows have no variants, a call is made once for each row."""
    project = Project(tmp_path)
    texts = [f"The lamp in hall {number} was bright all evening." for number in range(12)]
    lines = [{"text": text, "label": "positive", "spans": [[4, 8]]} for text in texts]
    project.write("rows.jsonl", "\n".join(orjson.dumps(line).decode() for line in lines))
    stages: dict[str, Any] = {
        **dict.fromkeys(("read", "chunks", "facts", "cloze", "clean")),
        "rows": {"kind": "ingest.samples", "paths": ["rows.jsonl"]},
        "split": {"kind": "curate.split", "by": "document", "test": 0.25},
        "augment": {"kind": "generate.augment", "model": "writer", "ways": ["ada"], "labels": LABELS, "band": [-1, -1]},
        "tidy": {"kind": "curate.dedup", "near": False, "needs": ["split", "augment"]},
        "export": {"kind": "curate.export", "formats": ["labelled"]},
    }
    with fake_server() as server:
        project.recipe(server.url, stages=stages, budget={"calls": 3})
        project.go(code=7)
        assert server.stats()["calls"] <= 3
        project.recipe(server.url, stages=stages)
        outcome = project.go()
        held_out = {row["id"] for row in project.records(outcome, "split") if '"test"' in row["marks"]}
        assert held_out and server.stats()["calls"] == 12 - len(held_out)
    variants = project.records(outcome, "augment")
    assert len(variants) >= 6 and not held_out & {parent for row in variants for parent in row["parents"]}
    [file] = Path(outcome["folder"]).glob("exports/dataset/labelled/train.jsonl")
    rows = [orjson.loads(line) for line in file.read_bytes().splitlines()]
    assert len(rows) == 12 - len(held_out) + len(variants)
    for each in rows:
        [(start, end)] = each["spans"]
        around = (each["text"][:start], each["text"][end:])
        assert around in {(text[:4], text[8:]) for text in texts}
        assert each["text"] in texts or each["text"][start:end] != "lamp"
