"""Conversations with a purpose, over a model that says what it is told to: what is shown, masked, refused and kept."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.generate.conftest import Context, chunk_of

from gristmill.core.ask import Answer, Parsed, Usage
from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Draft, Message, Quote, Record, Sample
from gristmill.core.stage import Dropped
from gristmill.core.thoughts import Thought, check_thought, parted
from gristmill.generate.chat import correction, rag, thoughts, weave
from gristmill.generate.chat.asked import asked_of, check_reply, check_silent, says
from gristmill.generate.chat.stages import STAGES, CorrectionConfig, RagConfig, ThoughtsConfig, WeaveConfig
from gristmill.generate.source import chat, source_of

Said = Callable[[list[Message]], str]

OTHERS = [
    "The ferry to Sile crosses twice a day and takes forty minutes.",
    "The bakery of Varn opens at five and sells rye bread.",
    "The tower of the lighthouse at Varn is 41 metres tall, as the sign at the gate says.",
]


class Scripted:
    """Stands at the protocol: says what a function of the messages says, until it is accepted or the attempts end."""

    role, identity = "writer", "scripted"

    def __init__(self, said: Said) -> None:
        self.said = said
        self.asked: list[list[Message]] = []

    async def ask(self, messages: Any, parse: Any, **_: Any) -> Any:
        self.asked.append(list(messages))
        text = self.said(self.asked[-1])
        key = f"call{len(self.asked)}"
        try:
            return Parsed(parse(text), Answer(text, "stop", Usage(), key, self.identity), (key,))
        except ValueError as error:
            raise Reject("invalid answer", str(error)) from error

    async def structured(self, messages: Any, schema: Any, **options: Any) -> Any:
        return await self.ask(messages, schema.model_validate_json, **options)


class World(Context):
    """The context of the house, and what a pass may reach."""

    def ancestors(self, record: Record, kind: Any) -> list[Any]:
        left, found = list(record.parents), []
        while left:
            one = self._records.get(left.pop(0))
            if one is not None and one not in found:
                found.append(one)
                left += one.parents
        return [each for each in found if isinstance(each, kind)]

    def ancestor(self, record: Record, kind: Any) -> Any:
        return next(iter(self.ancestors(record, kind)), None)

    def progress(self, done: float, total: float, **_: Any) -> None: ...


CHUNK = chunk_of()
SOURCE = source_of(CHUNK, Context(None, CHUNK))


def qa(question: str, answer: str, sentence: int = 1, *, chunk: Chunk = CHUNK, **more: Any) -> Sample:
    quote = source_of(chunk, Context(None, chunk)).sentence(sentence).quote
    return Sample(form="chat", kind="qa", messages=chat(question, answer), quotes=(quote,), parents=(chunk.id,), **more)


TALL = qa("How tall is the tower of Varn?", "41 metres", 2)
KEEPER = qa("Who was the first keeper at Varn?", "Tam Hale", 3)
MAPS = qa("How many maps does the library of Varn hold?", "912", 4)
ELSEWHERE = [chunk_of(text, start=5000 + 1000 * n) for n, text in enumerate(OTHERS)]


def world(said: Said = lambda _: "", *records: Record) -> World:
    return World(Scripted(said), CHUNK, TALL, KEEPER, MAPS, *ELSEWHERE, *records)  # type: ignore[arg-type]


def rag_config(**more: Any) -> RagConfig:
    return RagConfig(kind="generate.rag", model="writer", **more)


def drafts(config: RagConfig, *samples: Sample) -> list[Any]:
    return list(rag.retrieve(config, [*samples, *ELSEWHERE, CHUNK], world()))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.floats(0, 1))
def test_a_failed_retrieval_holds_no_answer_and_a_right_one_holds_its_own(most: int, failed: float) -> None:
    asked = [TALL, KEEPER, MAPS]
    made = drafts(rag_config(passages=most, failed=failed), *asked)
    assert sum(not draft.data["found"] for draft in made) == round(failed * len(asked))
    chunks = {chunk.id: chunk for chunk in (CHUNK, *ELSEWHERE)}
    for draft, sample in zip(made, asked, strict=True):
        shown = [chunks[each] for each in draft.data["passages"]]
        assert 1 <= len(shown) <= most and len({chunk.id for chunk in shown}) == len(shown)
        assert (CHUNK in shown) is draft.data["found"]
        assert not any(sample.answer in chunk.text for chunk in shown if chunk is not CHUNK)
        assert draft.parents[:2] == (CHUNK.id, sample.id) and set(draft.data["passages"]) <= set(draft.parents)


def test_retrievals_do_not_depend_on_the_order_of_records() -> None:
    one = drafts(rag_config(), TALL, KEEPER, MAPS)
    other = drafts(rag_config(), MAPS, TALL, KEEPER)
    assert {draft.id for draft in one} == {draft.id for draft in other}


def test_the_nearest_other_passage_is_shown_first_of_all() -> None:
    ferry = qa("How long does the ferry to Sile take?", "two hours", 1)
    (draft,) = drafts(rag_config(passages=1, failed=1.0), ferry)
    assert draft.data["passages"] == [ELSEWHERE[0].id]


def test_what_cannot_be_retrieved_for_is_told() -> None:
    long = Sample(form="chat", kind="talk", messages=(*TALL.messages, *TALL.messages), parents=(CHUNK.id,))
    only = rag.retrieve(rag_config(failed=1.0), [TALL], World(None, CHUNK, TALL))
    (dropped,) = only
    assert isinstance(dropped, Dropped) and dropped.reason == "no other passage to be misled by"
    (dropped,) = drafts(rag_config(), long)
    assert dropped.reason == "no single question with a quoted answer and a chunk"


REPLIES = {
    "found": {"reply": "The tower of Varn is 41 metres tall."},
    "missed": {
        "admission": "None of the passages says how tall it is.",
        "reply": "The tower of Varn is 41 metres tall.",
    },
}


@pytest.mark.parametrize("ask", ["structured", "line"])
@pytest.mark.parametrize("found", [True, False])
async def test_a_reply_cites_what_was_found_or_says_that_nothing_was(ask: str, found: bool) -> None:
    def said(messages: list[Message]) -> str:
        if ask == "structured":
            return orjson.dumps(REPLIES["found" if found else "missed"]).decode()
        return REPLIES["missed"]["reply" if "exactly as it is given" in messages[0].content else "admission"]

    config = rag_config(ask=ask, failed=0.0 if found else 1.0)
    (draft,) = drafts(config, TALL)
    (sample,) = await rag.run(config, draft, world(said, draft))
    system, question, reply = sample.messages
    assert [m.train for m in sample.messages] == [False, False, True] and question.content == TALL.question
    number = draft.data["passages"].index(CHUNK.id) + 1 if found else 0
    passage = re.search(rf"\[{number}\] varn.md, The Varn Lighthouse > History\n(.*)", system.content)
    assert (passage is not None and "912 maps" in passage[1]) is found
    assert reply.content.endswith(f"[{number}]") is found and "41 metres" in reply.content
    assert reply.content.startswith("None of") is not found
    assert (sample.quotes, sample.parents) == (TALL.quotes, (draft.id,))
    assert world(said, draft).ancestor(sample, Chunk) == CHUNK and sample.origin and sample.origin.calls


@pytest.mark.parametrize(
    "text",
    ["41 metres", "The tower of Varn is 40 metres tall.", "It is 41 metres tall.", "Reply: It has 41 metres.", ""],
)
def test_replies_that_do_not_say_their_answer_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"say the answer|whole sentence|pronoun|one to three|label"):
        check_reply(text, "41 metres")


def test_where_no_spaces_are_written_an_answer_is_found_and_a_reply_is_longer_than_it() -> None:
    assert check_reply("灯塔高四十一米，建于一八二二年。", "四十一米") and check_reply("它高四十一米。", "四十一米")
    with pytest.raises(ValueError, match="whole sentence"):
        check_reply("四十一米。", "四十一米")
    assert not says("灯塔很高。", "四十一米") and not says("It is 141 metres tall.", "41 metres")


def test_of_an_answer_with_thoughts_the_answer_counts() -> None:
    thoughtful = qa("How tall is the tower?", Thought("The tower comes to mind.", "41 metres").joined(), 2)
    assert asked_of(thoughtful.marked(thoughts=True), SOURCE).answer == "41 metres"


def test_a_long_answer_may_be_said_in_other_words_but_keeps_its_numbers() -> None:
    answer = "between 1818 and 1822 by the engineer Edda Moor"
    assert says("The engineer Edda Moor built it between 1818 and, as is known, 1822.", answer)
    assert not says("The engineer Edda Moor built it between 1818 and 1823.", answer)
    with pytest.raises(ValueError, match="do not say the answer"):
        check_silent("Is it really 41 metres?", "41 metres")


CORRECTION = {
    "right": "The tower of Varn is 41 metres tall.",
    "wrong": "The tower of Varn is 14 metres tall.",
    "doubt": "Is that so?",
    "admission": "No, I mixed up the digits.",
}


async def test_a_wrong_answer_is_never_learned_and_is_the_worse_of_a_pair() -> None:
    config = CorrectionConfig(kind="generate.correction", model="writer")
    held = TALL.marked(split="test")
    talk, pair = await correction.run(config, held, world(lambda _: orjson.dumps(CORRECTION).decode()))
    assert [(m.role, m.train) for m in talk.messages] == [
        ("user", False), ("assistant", False), ("user", False), ("assistant", True),
    ]  # fmt: skip
    assert talk.messages[1].content == CORRECTION["wrong"]
    assert talk.answer == f"{CORRECTION['admission']} {CORRECTION['right']}"
    assert (pair.form, pair.chosen[0].content, pair.rejected[0].content) == (
        "preference", CORRECTION["right"], CORRECTION["wrong"],
    )  # fmt: skip
    for sample in (talk, pair):
        assert (sample.quotes, sample.parents, sample.marks) == (TALL.quotes, (TALL.id,), {"split": "test"})


@pytest.mark.parametrize(
    "change",
    [
        {"wrong": "The tower of Varn is 41 metres tall, too."},
        {"right": "The tower of Varn is 14 metres tall."},
        {"doubt": "Is it not 41 metres?"},
        {"doubt": "How tall is the tower of Varn?"},  # the question once more
        {"admission": "Sorry, it has 41 metres."},
        {"admission": "No, it is not 14 metres."},  # would be learned, and no source holds it
    ],
)
async def test_a_wrong_answer_that_is_right_is_refused(change: dict[str, str]) -> None:
    config = CorrectionConfig(kind="generate.correction", model="writer")
    with pytest.raises(Reject, match="invalid answer"):
        await correction.run(config, TALL, world(lambda _: orjson.dumps(CORRECTION | change).decode()))


async def test_by_lines_the_wrong_value_is_made_by_code() -> None:
    def said(messages: list[Message]) -> str:
        if "whole sentence" in messages[0].content:
            return "The first keeper at Varn was Tam Hale."
        return "Is that so?" if "doubts it, in" in messages[0].content else "No, I was wrong."

    config = CorrectionConfig(kind="generate.correction", model="writer", ask="line")
    talk, pair = await correction.run(config, KEEPER, world(said))
    wrong = re.fullmatch(r"The first keeper at Varn was (.*)\.", pair.rejected[0].content)
    assert wrong and wrong[1] in ("Edda Moor", "Salt Court")  # two words, as the answer; not the Gull's Table
    assert talk.messages[3].content == "No, I was wrong. The first keeper at Varn was Tam Hale."
    assert talk.origin is not None and len(talk.origin.calls) == 3


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99_999), st.sampled_from(["{} metres", "in {}", "{}"]), st.integers(0, 9))
def test_another_number_is_never_the_same(number: int, form: str, seed: int) -> None:
    answer = form.format(number)
    sample = qa("How much is it at Varn?", answer)
    asked = asked_of(sample, SOURCE)
    wrong = correction.falsified(f"It is {answer} there.", asked, SOURCE, random.Random(seed))
    assert answer not in wrong and re.search(r"\d", wrong)


def test_no_wrong_answer_of_its_kind_is_a_reject() -> None:
    asked = asked_of(qa("What stands at Varn?", "an old thing"), SOURCE)
    with pytest.raises(Reject, match="no wrong answer of its kind"):
        correction.falsified("There stands an old thing.", asked, SOURCE, random.Random(1))


GENERAL = Sample(
    form="chat",
    kind="chat",
    messages=(
        Message(role="system", content="You are kind."),
        Message(role="user", content="A name for a boat?"),
        Message(role="assistant", content="Perhaps the Grey Gull.", train=True),
        Message(role="user", content="Another?"),
        Message(role="assistant", content="The Blue Heron, then.", train=((0, 14), (16, 20))),
    ),
)


@pytest.mark.parametrize("ask", ["structured", "line"])
async def test_thoughts_stand_before_answers_that_stay_as_they_are(ask: str) -> None:
    steps = ["They want a boat's name.", "A bird of the sea fits it."]
    said = orjson.dumps({"steps": steps}).decode() if ask == "structured" else " ".join(steps)
    config = ThoughtsConfig(kind="generate.thoughts", model="writer", ask=ask, language="de")
    context = world(lambda _: said)
    (sample,) = await thoughts.run(config, GENERAL, context)
    for before, after in zip(GENERAL.messages, sample.messages, strict=True):
        told = parted(after.content, sample)
        assert (told.answer, bool(told.thought)) == (before.content, before.role == "assistant")
    last, old = sample.messages[-1], GENERAL.messages[-1]
    assert isinstance(last.train, tuple) and isinstance(old.train, tuple)
    assert [last.content[s:e] for s, e in last.train[1:]] == [old.content[s:e] for s, e in old.train]
    assert last.content[slice(*last.train[0])].endswith("Answer: ")
    assert sample.parents == (GENERAL.id,) and sample.origin is not None and len(sample.origin.calls) == 2
    first, second = context.model("writer").asked  # type: ignore[attr-defined]
    assert "Write in: German" in first[-1].content and "Perhaps the Grey Gull." in second[-1].content
    assert "They want a boat" not in second[-1].content
    (again,) = await thoughts.run(config, sample, context)  # anew, not twice
    assert [m.content for m in again.messages] == [m.content for m in sample.messages]
    assert again.messages[-1].train == last.train


@pytest.mark.parametrize(
    "steps",
    [
        ["They want a boat's name.", "They want a boat's  NAME."],
        ["They want a name.", "Answer: the Grey Gull."],
        ["User: and then?", "Nothing comes to mind."],
    ],
)
async def test_loops_answers_and_next_turns_are_no_thoughts(steps: list[str]) -> None:
    config = ThoughtsConfig(kind="generate.thoughts", model="writer")
    with pytest.raises(Reject, match="invalid"):
        await thoughts.run(config, GENERAL, world(lambda _: orjson.dumps({"steps": steps}).decode()))


def test_a_thought_may_hold_a_short_answer_and_never_writes_a_longer_one_out() -> None:
    answer = "Fried rice: slice the leek and soften it in oil, add the cooked rice, and scramble the eggs in the gap."
    copied = (
        "They want to cook. They slice the leek and soften it in oil, then add the cooked rice and scramble the eggs."
    )
    with pytest.raises(ValueError, match="do not write the answer out"):
        thoughts.check_leads(copied, answer)
    led = "They want a meal of rice, two eggs and a leek. All of it fits into one pan, so I name the order."
    assert thoughts.check_leads(led, answer) == led
    assert thoughts.check_leads("91 is 7 times 13, so it is no prime.", "No: 91 is 7 times 13.")
    near = ["They say Admiral is a good name as it is grand.", "They say Admiral is a good name because it is grand."]
    with pytest.raises(ValueError, match="two steps say the same"):
        thoughts.schema(4, answer).model_validate({"steps": near})


async def test_a_sample_without_answers_has_nothing_to_think_about() -> None:
    text = Sample(form="text", kind="passage", text="A text.")
    with pytest.raises(Reject, match="no answer to think about"):
        await thoughts.run(ThoughtsConfig(kind="generate.thoughts", model="writer"), text, world())


@given(st.text(min_size=1), st.text())
def test_a_thought_and_its_answer_come_apart_as_they_were_joined(thought: str, answer: str) -> None:
    sample = Sample(form="text", kind="x", text="x", marks={"thoughts": True})
    try:
        kept = check_thought(thought)
    except ValueError:
        return
    assert parted(Thought(kept, answer).joined(), sample) == Thought(kept, answer)
    assert parted(Thought(kept, answer).joined(), Sample(form="text", kind="x", text="x")).thought == ""


def gathered(*samples: Sample, turns: int = 4) -> list[Any]:
    config = WeaveConfig(kind="generate.weave", model="writer", turns=turns)
    return list(weave.gather(config, samples, world(lambda _: "", *samples)))


def test_a_conversation_asks_for_each_fact_once_and_never_for_what_is_held_out() -> None:
    again = qa("Of what height is the tower of Varn?", "41 metres", 2)
    held = qa("When was the Salt Court of Varn founded?", "1640", 5, marks={"split": "test"})
    made = gathered(MAPS, TALL, again, held, KEEPER)
    (dropped, alone) = [each for each in made if isinstance(each, Dropped)]
    assert (dropped.record, dropped.reason) == (held, "held out from training")
    assert alone.reason == "alone in its place" and alone.record in (TALL, again)
    (draft,) = [each for each in made if isinstance(each, Draft)]
    kept = TALL if alone.record is again else again
    assert draft.parents == (kept.id, KEEPER.id, MAPS.id)  # in reading order


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 30), st.integers(2, 6))
def test_conversations_are_cut_into_equal_parts(count: int, turns: int) -> None:
    quotes = [Quote(text="x", start=n, end=n + 1, path="a.md") for n in range(count)]
    pool = [
        Sample(form="chat", kind="qa", messages=chat(f"What is {n}?", f"a {n}"), quotes=(q,), parents=(CHUNK.id,))
        for n, q in enumerate(quotes)
    ]
    made = gathered(*pool, turns=turns)
    sizes = [len(draft.parents) for draft in made if isinstance(draft, Draft)]
    assert sum(sizes) + sum(isinstance(each, Dropped) for each in made) == count
    assert max(sizes) <= turns and max(sizes) - min(sizes) <= 1


TURNS = [
    {"user": "I see a tower. How tall is it?", "assistant": "It is 41 metres tall."},
    {"user": "And who kept it first?", "assistant": "That was Tam Hale."},
]


async def test_a_conversation_says_every_answer() -> None:
    config = WeaveConfig(kind="generate.weave", model="writer", tones=["dry"])
    (draft,) = gathered(TALL, KEEPER)
    context = world(lambda _: orjson.dumps({"turns": TURNS}).decode(), draft)
    (sample,) = await weave.run(config, draft, context)
    assert [m.content for m in sample.messages] == [text for turn in TURNS for text in turn.values()]
    assert [m.train for m in sample.messages] == [False, True] * 2 and sample.marks == {"tone": "dry"}
    assert set(sample.quotes) == {*TALL.quotes, *KEEPER.quotes} and sample.parents == (draft.id,)
    assert "Tone: dry" in context.model("writer").asked[0][-1].content  # type: ignore[attr-defined]
    for wrong in ([TURNS[0], TURNS[0]], TURNS[:1], [*TURNS, TURNS[0]]):
        with pytest.raises(Reject, match="invalid answer"):
            await weave.run(config, draft, world(lambda _, t=wrong: orjson.dumps({"turns": t}).decode(), draft))


async def test_by_lines_a_turn_that_fails_is_left_out_and_one_turn_is_no_conversation() -> None:
    config = WeaveConfig(kind="generate.weave", model="writer", ask="line")
    (draft,) = gathered(TALL, KEEPER, MAPS)

    def said(messages: list[Message], *, bad: tuple[str, ...] = ("912",)) -> str:
        answer = re.findall(r"(?:Short answer|Answer, not to be said): (.*)", messages[-1].content)[-1]
        if answer in bad:
            return f"The answer {answer} stands in both." if "Person:" not in messages[-1].content else "No."
        asks = "And who is it?" if answer == "Tam Hale" else "And what is it there?"
        return f"That is {answer}." if "Person:" in messages[-1].content else asks

    context = world(said, draft)
    (sample,) = await weave.run(config, draft, context)
    assert [m.content for m in sample.messages if m.role == "assistant"] == ["That is 41 metres.", "That is Tam Hale."]
    assert context.counts["lines with invalid answer"] == 1
    assert "Assistant: That is 41 metres." in context.model("writer").asked[2][-1].content  # type: ignore[attr-defined]
    with pytest.raises(Reject, match="no usable conversation"):
        await weave.run(config, draft, world(lambda m: said(m, bad=("912", "Tam Hale")), draft))
    again = world(lambda m: said(m).replace("And who is it?", "The keeper. And what is it there?"), draft)
    with pytest.raises(Reject, match="no usable conversation"):  # what was asked before is no turn
        await weave.run(config, draft, again)


@pytest.mark.parametrize("language", [None, "fr"])
async def test_the_language_reaches_every_prompt_of_the_family(language: str | None) -> None:
    (retrieved,) = drafts(rag_config(), TALL)
    (gathering,) = gathered(TALL, KEEPER)
    records = {"generate.rag": retrieved, "generate.weave": gathering, "generate.correction": TALL,
               "generate.thoughts": GENERAL}  # fmt: skip
    for kind, record in records.items():
        for ask in ("structured", "line"):
            context = world(lambda _: "", record)
            stage = STAGES[kind][-1]
            config = stage.config(kind=kind, model="writer", ask=ask, language=language)  # type: ignore[call-arg]
            with pytest.raises(Reject):
                await stage.load()(config, record, context)
            (asked, *_) = context.model("writer").asked  # type: ignore[attr-defined]
            assert f"Write in: {'French' if language else 'English'}" in asked[-1].content
