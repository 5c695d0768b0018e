"""Instructions and preferences: made up, evolved, drawn from the model itself, paired, and with tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.generate.conftest import Context

from gristmill.core.ask import Answer, Parsed, Usage
from gristmill.core.errors import ConfigError, InputError, Reject
from gristmill.core.records import Draft, Message, Record, Sample
from gristmill.core.stage import Dropped
from gristmill.generate.instruct import calls, evolve, magpie, novel, pairs, tools
from gristmill.generate.instruct.likeness import Known, rouge_l
from gristmill.generate.instruct.stages import (
    EvolveConfig,
    MagpieConfig,
    PairsConfig,
    SelfInstructConfig,
    ToolCallsConfig,
)
from gristmill.generate.instruct.wording import check_instruction
from gristmill.retrieve.terms import terms


class Says:
    """Stands at the protocol: what it says is a function of the last message and the sample."""

    role, identity = "writer", "says"

    def __init__(self, says: Callable[[str, int], str]) -> None:
        self.says = says
        self.asked: list[str] = []

    async def ask(self, messages: Any, parse: Any, *, sample: int = 0, **_: Any) -> Any:
        self.asked.append("\n".join(message.content for message in messages))
        said = self.says(messages[-1].content, sample)
        try:
            return Parsed(parse(said), Answer(said, "stop", Usage(), "key", self.identity), (f"key{len(self.asked)}",))
        except ValueError as error:
            raise Reject("invalid answer", str(error)) from error

    async def structured(self, messages: Any, schema: Any, **options: Any) -> Any:
        return await self.ask(messages, schema.model_validate_json, **options)

    async def complete(self, prompt: Any, *, sample: int = 0, **_: Any) -> Answer:
        said = self.says(str(prompt), sample)
        return Answer(said.removesuffix("|cut"), "length" if said.endswith("|cut") else "stop", Usage(), "key", "says")


def context(says: Callable[[str, int], str] = lambda _text, _n: "", *records: Record) -> Any:
    return Context(Says(says), *records)  # type: ignore[arg-type]


def row(**data: Any) -> Draft:
    return Draft(kind="row", data=data)


SEEDS = [
    row(instruction=text)
    for text in (
        "Write a toast for a retiring lighthouse keeper.",
        "Explain to a child why boats float.",
        "List five uses for an old fishing net.",
        "Turn this into one sentence: The tide was low. The boat lay on its side.",
        "Suggest a name for a bakery in a harbour town.",
    )
]


# Self-Instruct


def drawn(config: SelfInstructConfig, seeds: list[Draft], seed: int = 7) -> list[Any]:
    stage = context()
    stage.seed = seed
    return list(novel.draw(config, seeds, stage))


def new_config(**options: Any) -> SelfInstructConfig:
    return SelfInstructConfig(kind="generate.self_instruct", model="writer", **options)


def test_draws_depend_on_the_seed_and_the_rows_and_on_nothing_else() -> None:
    config = new_config(rows=12, shown=2)
    draws = drawn(config, SEEDS)
    assert len(draws) == 12 and drawn(config, SEEDS[::-1]) == draws != drawn(config, SEEDS, seed=8)
    assert len({draw.parents for draw in draws}) > 4 and all(len(set(draw.parents)) == 2 for draw in draws)
    assert drawn(new_config(rows=3, shown=2), SEEDS) == draws[:3]


def test_too_few_seeds_are_an_error_and_rows_without_one_are_dropped() -> None:
    dropped, *rest = drawn(new_config(rows=1), [row(text="no"), *SEEDS])
    assert dropped.reason == "no value for instruction" and len(rest) == 1
    with pytest.raises(InputError, match="there are 2 instructions, and 4 are to be shown"):
        drawn(new_config(), SEEDS[:2])


async def test_what_is_not_new_is_dropped() -> None:
    said = [
        "Instruction: Draw up a rota for three ferry crews.",
        SEEDS[0].data["instruction"] + " Now.",
        "Plan a short walk.",
    ]
    config = new_config(rows=4, shown=5, language="de")
    stage = context(lambda _, n: str(said[n % 3]), *SEEDS)
    written: list[Draft] = []
    for draw in novel.draw(config, SEEDS, stage):
        assert isinstance(draw, Draft)
        stage._records[draw.id] = draw
        written += await novel.write(config, draw, stage)
    assert all("Write in: German" in asked and "lighthouse" in asked for asked in stage._model.asked)
    first, old, third, again = novel.run(config, written, stage)
    assert isinstance(first, Draft) and first.data == {"instruction": said[0].partition(": ")[2], "language": "de"}
    assert isinstance(third, Draft) and isinstance(old, Dropped) and isinstance(again, Dropped)
    assert {old.reason, again.reason} == {"not new"}


COPIED = "\n".join(f"{n}. {seed.data['instruction']}" for n, seed in enumerate(SEEDS[:4], 1))


@pytest.mark.parametrize(
    ("said", "new"),
    [
        ("Do what stands here, for a friend of mine.\n\n" + COPIED, False),
        (f"Before you start, think of a calm sea and of nothing else. {SEEDS[2].data['instruction']} Be brief.", False),
        ("List the stars by which a boat may be steered at night, and say why they are of use.", True),
    ],
)
async def test_what_holds_a_seed_is_not_new_however_much_stands_around_it(said: str, new: bool) -> None:
    config = new_config(rows=1, shown=5)
    stage = context(lambda *_: said, *SEEDS)
    [draw] = novel.draw(config, SEEDS, stage)
    assert isinstance(draw, Draft)
    stage._records[draw.id] = draw
    row_of = {"instruction": " ".join(said.split()), "language": "en"}
    [made] = novel.run(config, [Draft(kind="row", data=row_of, parents=(draw.id,))], stage)
    assert isinstance(made, Draft) is new
    if isinstance(made, Dropped):
        assert made.reason == "not new"


def test_a_text_made_before_may_be_part_of_a_longer_one_and_a_seed_may_not() -> None:
    known, longer = Known(), "Name a star. " + "Say how far away it is and who saw it first. " * 2
    known.add("Name a star.")
    assert known.likest(longer, least=0.7) == 0
    known.add("Name a star.", seed=True)
    assert known.likest(longer, least=0.7) == 1


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=12)


@settings(max_examples=80, deadline=None)
@given(WORDS, WORDS)
def test_counting_words_never_hides_a_likeness(one: list[str], other: list[str]) -> None:
    likeness = rouge_l(one, other)
    assert likeness == rouge_l(other, one) and 0 <= likeness <= 1 and (likeness == 1) == (one == other and one != [])
    known = Known()
    known.add(" ".join(other))
    assert known.likest(" ".join(one), least=0.5) == (likeness if likeness >= 0.5 else 0.0)


def test_rouge_l_of_a_known_pair() -> None:
    one, other = terms("police killed the gunman"), terms("Police kill the gunman.")
    assert rouge_l(one, other) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no instruction"),
        ("Do it.", "no instruction"),
        ("word " * 60, "too long"),
        ("Rewrite the given prompt so that it rhymes.", "alone"),
        ("Sum it up <|im_end|> and stop", "alone"),
        ("Say the word now. " * 6, "repeats itself"),
    ],
)
def test_what_is_no_instruction_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_instruction(text, most=50)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (COPIED, "several"),
        ("Some new instructions for you:\n" + COPIED, "several"),
        ("Instruction:\n" + COPIED, "several"),
        ("1. Sort these jars by size. 2. Write a toast.", "several"),
        ("Instruction 1: Sort these jars by size.\n\nInstruction 2: Write a toast.", "several"),
        ("Certainly! Here are the instructions written in English:\n\n" + COPIED, "chat"),
        ("Certainly! I'm ready to assist you. Please provide the instructions you would like me to translate.", "chat"),
        ("Certainly! Here\u2019s the instruction in English:\n\nWrite a polite letter.", "chat"),
        ("Instruction: Sure, name three birds that dive.", "chat"),
        ("Of course. Name three birds that dive.", "chat"),
        ("Here is a polite letter to your neighbour: Dear neighbour, your goat eats my laundry.", "chat"),
        ("I am ready to help you. Name three birds.", "chat"),
        ("Please provide the instructions you would like me to translate into English.", "chat"),
        ("Nat\u00fcrlich! Nenne drei Vögel, die tauchen.", "chat"),
    ],
)
def test_a_chat_and_a_list_of_instructions_are_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_instruction(text, most=150)


@pytest.mark.parametrize(
    "text",
    [
        "Sort these by weight:\n1. an anchor\n2. a sail\n3. an oar",
        "1. an anchor\n2. a sail\n3. an oar\nSort these by weight.",
        "Put these tasks in order: 1. Moor the boat. 2. Furl the sail.",
        "Here are my notes: tide low, dog asleep. Turn them into one sentence.",
        "I'm ready to buy my first boat. What should I look at?",
        "Surely boats float: say why. Certainly many sink.",
        "Sure signs of rain: list five of them.",
        "Provide a list of five ports in which one would like to winter.",
    ],
)
def test_lists_and_openings_of_one_who_asks_are_instructions(text: str) -> None:
    assert check_instruction(text, most=150) == text


def test_what_evolves_may_open_as_it_did_before() -> None:
    before = "Here are three words: tide, boat, dog. Use them."
    assert check_instruction(f"{before} Rhyme.", most=50, before=before) == f"{before} Rhyme."


@pytest.mark.parametrize(
    "raw",
    [
        '"Sum up a day at sea."',
        "New instruction: Sum up a day at sea.",
        "3. Sum up a day at sea.",
        "Q: Sum up a day at sea.",
        "Write in: English\nInstruction:\nSum up a day at sea.",
    ],
)
def test_labels_and_quotation_marks_are_no_part_of_it(raw: str) -> None:
    assert check_instruction(raw, most=50) == "Sum up a day at sea."


def test_a_language_without_spaces_has_instructions_too() -> None:
    said = "请用三句话向一个孩子解释潮汐为什么会来去。"
    assert check_instruction(said, most=50) == said
    for text, why in (("做吧", "no instruction"), (said * 6, "too long")):
        with pytest.raises(ValueError, match=why):
            check_instruction(text, most=50)
    assert 0.7 < rouge_l(terms(said), terms(said.replace("孩子", "老人"))) < 1


# Evol-Instruct


def evolve_config(**options: Any) -> EvolveConfig:
    return EvolveConfig(kind="generate.evolve", model="writer", **options)


async def test_each_round_evolves_what_the_one_before_gave() -> None:
    stage = context(lambda text, _: text.rpartition("\n")[2] + " And give two reasons for it.")
    seed = row(instruction="Explain why boats float.", topic="sea")
    made = await evolve.run(evolve_config(rounds=3, ways=["steps", "deepen"], language="fr"), seed, stage)
    assert [one.data["round"] for one in made] == [1, 2, 3] and {one.data["topic"] for one in made} == {"sea"}
    assert [one.parents for one in made] == [(seed.id,), (made[0].id,), (made[1].id,)]
    assert {str(one.data["way"]) for one in made} <= {"steps", "deepen"}
    assert all("Write in: French" in asked for asked in stage._model.asked)


@pytest.mark.parametrize(("wanted", "named"), [(None, "German"), ("fr", "French")])
async def test_a_row_keeps_its_language_unless_the_recipe_names_another(wanted: str | None, named: str) -> None:
    stage = context(lambda text, _: text.rpartition("\n")[2] + " Nenne zwei davon.")
    seed = row(instruction="Nenne Gründe, warum Boote schwimmen.", language="de")
    [made] = await evolve.run(evolve_config(rounds=1, language=wanted), seed, stage)
    assert f"Write in: {named}" in stage._model.asked[0] and made.data["language"] == (wanted or "de")
    data = [row(instruction=f"Sage {n} Sätze über Boote.", language="de") for n in range(3)]
    [draw] = drawn(new_config(rows=1, shown=3), data)
    assert (
        draw.data["language"] == "de"
        and "language" not in drawn(new_config(rows=1, shown=4), [*data, seed_of("en")])[0].data
    )


def seed_of(language: str) -> Draft:
    return row(instruction="Say three things about boats.", language=language)


@pytest.mark.parametrize(
    "said", ["Explain why boats float.", "Here is the rewritten prompt: Explain it all.", "", "Explain " + "it " * 200]
)
async def test_what_evolved_into_nothing_is_a_reject(said: str) -> None:
    with pytest.raises(Reject, match="invalid answer"):
        await evolve.run(evolve_config(), row(instruction="Explain why boats float."), context(lambda *_: said))


@pytest.mark.parametrize(
    ("asks", "more", "why"), [("yes", "yes", None), ("yes", "no", "judged same"), ("no", "no", "judged no instruction")]
)
async def test_a_judge_ends_a_line_by_its_verdict(asks: str, more: str, why: str | None) -> None:
    def says(text: str, _: int) -> str:
        judged = text.startswith("First:")
        return (
            orjson.dumps({"asks": asks, "asks_more": more}).decode()
            if judged
            else text.rpartition("\n")[2] + " And say how."
        )

    run = evolve.run(evolve_config(judge="writer"), row(instruction="Explain why boats float."), context(says))
    if why is None:
        made = await run
        assert len(made) == 2 and made[0].origin and len(made[0].origin.calls) == 2
        return
    with pytest.raises(Reject, match=why):
        await run


# Magpie


def magpie_config(**options: Any) -> MagpieConfig:
    return MagpieConfig(kind="generate.magpie", model="writer", **options)


async def test_the_model_goes_on_where_a_user_would_speak() -> None:
    said = ["How do I splice a rope?", "no", "How do I|cut", "Name a star by which one steers."]
    config = magpie_config(rows=4, opening="<|user|>\n")
    stage = context(lambda prompt, n: said[n] if prompt == "<|user|>\n" else "")
    made, reasons = [], []
    for opening in magpie.openings(config, [], stage):
        assert isinstance(opening, Draft)
        try:
            made += await magpie.write(config, opening, stage)
        except Reject as reject:
            reasons.append(reject.reason)
    assert [one.data["instruction"] for one in made] == [said[0], said[3]]
    assert reasons == ["no instruction", "truncated answer"]


def test_openings_are_the_tokens_of_the_models_own_template(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[Message]] = []

    def opening(before: list[Message]) -> list[int]:
        seen.append(before)
        return [1, len(before), 2]

    monkeypatch.setattr(magpie.Renderer, "load", lambda _: SimpleNamespace(opening=opening))
    stage = context()
    stage.weights = lambda role: role
    made = list(magpie.openings(magpie_config(rows=3, system=["You cook.", "You sail."]), [], stage))
    assert [one.data["opening"] for one in made if isinstance(one, Draft)] == [[1, 1, 2]] * 3
    assert [before[0].content for before in seen] == ["You cook.", "You sail."]
    with pytest.raises(ValidationError, match="sent as it stands"):
        magpie_config(opening="x", system=["y"])


@pytest.mark.parametrize(("system", "begins"), [(["You cook."], "You cook.\n\nThe user"), ([], "The user")])
async def test_a_language_is_asked_for_and_said_in_the_row(
    monkeypatch: pytest.MonkeyPatch, system: list[str], begins: str
) -> None:
    def opening(before: list[Message]) -> list[int]:
        assert before[0].content.startswith(f"{begins} writes in German.") and before[0].role == "system"
        return [7]

    monkeypatch.setattr(magpie.Renderer, "load", lambda _: SimpleNamespace(opening=opening))
    config = magpie_config(rows=1, system=system, language="German")
    stage = context(lambda _prompt, _n: "Wie koche ich eine klare Suppe?")
    stage.weights = lambda role: role
    (drawn,) = magpie.openings(config, [], stage)
    assert isinstance(drawn, Draft)
    (made,) = await magpie.write(config, drawn, stage)
    assert made.data == {"instruction": "Wie koche ich eine klare Suppe?", "language": "de"}
    assert magpie.fields(config, Path(), None) == made.data.keys()


# Pairs


def judged(question: str, answer: str, mark: Any = None) -> Sample:
    said = (Message(role="user", content=question), Message(role="assistant", content=answer, train=True))
    marks = {} if mark is None else {"judge_quality": mark}
    return Sample(form="chat", kind="ask", messages=said, marks=marks)


def pair_config(**options: Any) -> PairsConfig:
    return PairsConfig(kind="generate.pairs", mark="judge_quality", **options)


def test_the_best_and_the_worst_answer_to_one_prompt_are_a_pair() -> None:
    order = ["bad", "fair", "good"]
    one = [judged("Why?", "So.", "fair"), judged("Why?", "Because.", "good"), judged("Why?", "No.", "bad")]
    stage = context()
    [pair] = pairs.run(pair_config(order=order), one, stage)
    assert isinstance(pair, Sample) and pair.form == "preference" and pair.marks["margin"] == 2
    assert (pair.chosen[0].content, pair.rejected[0].content) == ("Because.", "No.") and pair.question == "Why?"
    assert pair.parents == (one[1].id, one[2].id) and not any(m.train for m in pair.messages)
    assert pairs_of(one[::-1], order=order) == [pair] and stage.counts["answers between the best and the worst"] == 1
    assert "split" not in pair.marks


def test_a_pair_is_of_the_split_that_its_answers_are_of() -> None:
    held = [judged("Why?", "So.", 1).marked(split="test"), judged("Why?", "Because.", 4).marked(split="test")]
    [pair] = pairs_of(held)
    assert pair.marks == {"split": "test", "margin": 3}
    mixed = pairs_of([held[0], held[1].marked(split="train")])
    assert [one.reason for one in mixed] == ["only one answer"] * 2


def pairs_of(given: list[Sample], **options: Any) -> list[Any]:
    return list(pairs.run(pair_config(**options), given, context()))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([judged("Why?", "So.", 3)], "only one answer"),
        ([judged("Why?", "So.", 3), judged("Why?", "Not so.", 2.5)], "no answer is clearly better"),
        ([judged("Why?", "So.", 1), judged("Why?", "So. ", 5)], "the same words, judged twice"),
        ([judged("Why?", "So.")], "no mark judge_quality"),
    ],
)
def test_what_is_no_pair_is_dropped_with_its_reason(given: list[Sample], reason: str) -> None:
    assert [one.reason for one in pairs_of(given)] == [reason] * len(given)


def test_a_mark_that_says_nothing_of_better_and_worse_is_an_error() -> None:
    with pytest.raises(ConfigError, match="'odd'"):
        pairs_of([judged("Why?", "So.", "odd")], order=["bad", "good"])
    with pytest.raises(ConfigError, match="'good'") as caught:
        pairs_of([judged("Why?", "So.", "good")])
    assert "Give `order`" in caught.value.hint


# Tool calls

TIDE = {
    "name": "tide_at",
    "description": "Tells the depth of the water in a harbour at an hour",
    "parameters": {"harbour": {"maxLength": 40}, "hour": {"type": "integer", "minimum": 0, "maximum": 23}},
    "returns": {"depth_metres": "number", "state": ["rising", "falling"]},
}
FERRY = {**TIDE, "name": "ferry", "description": "Tells when the next ferry leaves", "returns": {"leaves": "string"}}
WEATHER = {**TIDE, "name": "weather", "description": "Tells the weather"}
TOOLS = [row(**TIDE), row(**FERRY), row(**WEATHER)]


def tool_config(**options: Any) -> ToolCallsConfig:
    return ToolCallsConfig(kind="generate.tool_calls", model="writer", **options)


def test_offers_are_drawn_by_seed_and_sometimes_without_the_right_tool() -> None:
    config = tool_config(per_tool=20, offered=2, missing=0.3)
    offers = [one for one in tools.draw(config, TOOLS, context()) if isinstance(one, Draft)]
    assert len(offers) == 60 and offers == list(tools.draw(config, TOOLS, context()))
    for offer in offers:
        data: Any = offer.data
        assert (data["tool"] in data["offered"]) is not data["missing"]
        assert len(data["offered"]) == 2
    assert 8 <= sum(bool(offer.data["missing"]) for offer in offers) <= 28
    places = {data["offered"].index(data["tool"]) for data in (o.data for o in offers) if not data["missing"]}  # type: ignore[union-attr,arg-type]
    assert places == {0, 1}


def test_a_row_that_is_no_tool_is_dropped_and_one_tool_is_never_missing() -> None:
    bad, *rest = tools.draw(
        tool_config(per_tool=1, missing=0), [row(**{**TIDE, "name": "tide at"}), TOOLS[0]], context()
    )
    assert isinstance(bad, Dropped) and bad.reason == "tool that cannot be read" and len(rest) == 1
    again = row(**{**TIDE, "description": "Tells the tide"})
    told, *_ = tools.draw(tool_config(per_tool=1), [*TOOLS, again], context())
    assert isinstance(told, Dropped) and (told.record, told.reason) == (again, "name of another tool")
    with pytest.raises(InputError, match="needs another"):
        list(tools.draw(tool_config(), TOOLS[:1], context()))


def speaker(**instead: str) -> Callable[[str, int], str]:
    """An assistant that does everything right, but for what is said `instead`."""
    right = {
        "values": '{"harbour": "Orrel Bay", "hour": 17}',
        "request": "How deep is it in Orrel Bay at 17 hours?",
        "result": '{"depth_metres": 2.0, "state": "falling"}',
        "answer": "It is 2 metres deep there, and falling.",
        "none": "I cannot tell the depth, but I know when the ferry leaves.",
    } | instead

    def says(text: str, _: int) -> str:
        if text.startswith("Tools:"):
            return right["none"]
        if text.startswith("Request:"):
            return right["answer"]
        if text.startswith("What the assistant"):
            return right["request"]
        return right["result" if "\nCall:" in text else "values"]

    return says


def offer(*, missing: bool) -> Draft:
    data = {"tool": TIDE, "offered": [FERRY] if missing else [FERRY, TIDE], "missing": missing, "number": 0}
    return Draft(kind="offer", data=data, parents=(TOOLS[0].id,))


async def test_a_call_follows_from_its_request_and_an_answer_from_its_result() -> None:
    stage = context(speaker())
    [sample] = await calls.write(tool_config(language="de"), offer(missing=False), stage)
    system, user, call, result, answer = sample.messages
    assert [m.role for m in sample.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert [m.train for m in sample.messages] == [False, False, True, False, True]
    listed = [
        orjson.loads(line) for line in system.content.partition("<tools>\n")[2].partition("\n</tools>")[0].splitlines()
    ]
    assert [tool["function"]["name"] for tool in listed] == ["ferry", "tide_at"]
    assert listed[1]["function"]["parameters"]["required"] == ["harbour", "hour"]
    said = orjson.loads(call.content.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert said == {"name": "tide_at", "arguments": {"harbour": "Orrel Bay", "hour": 17}}
    assert orjson.loads(result.content) == {"depth_metres": 2.0, "state": "falling"}
    assert user.content and answer.content and sample.kind == "tool_call" and sample.language == "de"
    assert sample.origin and len(sample.origin.calls) == 4
    assert all("Write in: German" in asked for asked in stage._model.asked)


async def test_where_no_tool_fits_the_answer_says_so() -> None:
    [sample] = await calls.write(tool_config(), offer(missing=True), context(speaker()))
    assert [m.role for m in sample.messages] == ["system", "user", "assistant"] and sample.kind == "tool_refusal"
    assert "tide_at" not in sample.messages[0].content


async def test_values_are_found_where_no_spaces_are_written() -> None:
    said = {
        "values": '{"harbour": "奥雷尔湾", "hour": 17}',
        "request": "今天17点奥雷尔湾的水有多深？",
        "answer": "那里的水深为2米，正在退潮。",
    }
    [sample] = await calls.write(tool_config(language="zh"), offer(missing=False), context(speaker(**said)))
    assert sample.messages[1].content == said["request"] and sample.answer == said["answer"]


@pytest.mark.parametrize("result", ['{"open": true, "days": []}', '{"open": false, "days": ["Monday"]}'])
async def test_a_result_of_truths_alone_is_answered_in_any_words(result: str) -> None:
    tool = {**TIDE, "returns": {"open": "boolean", "days": {"type": "array"}}}
    draft = offer(missing=False).model_copy(update={"data": {**offer(missing=False).data, "tool": tool}})
    stage = context(speaker(result=result, answer="It is, but only on Monday."))
    [sample] = await calls.write(tool_config(), draft, stage)
    assert sample.answer == "It is, but only on Monday."


@pytest.mark.parametrize(
    "instead",
    [
        {"values": '{"harbour": "Orrel Bay", "hour": 29}'},
        {"request": "How deep is it in the bay at 17 hours?"},
        {"request": "Call tide_at for Orrel Bay, 17."},
        {"result": '{"depth_metres": 2.0, "state": "odd"}'},
        {"answer": "It is quite deep there."},
        {"answer": 'It is {"depth_metres": 2} there.'},
    ],
)
async def test_what_does_not_follow_is_a_reject(instead: dict[str, str]) -> None:
    with pytest.raises(Reject, match="invalid answer"):
        await calls.write(tool_config(), offer(missing=False), context(speaker(**instead)))


def test_columns_that_rows_lack_are_refused_free(tmp_path: Any) -> None:
    known = frozenset({"text"})
    for fields, config in (
        (novel.fields, new_config()),
        (evolve.fields, evolve_config()),
        (tools.fields, tool_config()),
    ):
        with pytest.raises(ConfigError, match="the rows have no"):
            fields(config, tmp_path, known)  # type: ignore[operator]
