"""Questions that are repaired or given up, and system messages that vary by the id of a chat alone."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError
from tests.generate.conftest import Context, chunk_of

from gristmill.core.ask import Answer, Parsed, Usage
from gristmill.core.errors import Reject
from gristmill.core.records import Message, Sample
from gristmill.core.thoughts import Thought, parted
from gristmill.curate import converse
from gristmill.curate.stages import ConverseConfig
from gristmill.generate.recall import repair, system
from gristmill.generate.recall.stages import RepairConfig, SystemConfig

CHUNK = chunk_of()
LEANING = ("According to the text, who was the engineer?", "The text says that it was Edda Moor.")
WHOLE = ("Who built the lighthouse at Varn?", "Edda Moor did.")


def sample_of(question: str = WHOLE[0], answer: str = WHOLE[1], **more: Any) -> Sample:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer, train=True))
    return Sample(form="chat", kind="qa", parents=(CHUNK.id,), **{"messages": messages, **more})


class Judge:
    """Stands at the protocol: one verdict, whatever is asked."""

    role, identity, context = "writer", "judge", None

    def __init__(self, verdict: str, question: str = "-?-", answer: str = "-") -> None:
        self.said = orjson.dumps({"verdict": verdict, "question": question, "answer": answer}).decode()
        self.asked: list[str] = []

    async def structured(self, messages: Any, schema: Any, **_: Any) -> Any:
        self.asked.append(messages[-1].content)
        try:
            value = schema.model_validate_json(self.said)
        except ValueError as error:
            raise Reject("invalid answer", str(error)) from error
        return Parsed(value, Answer(self.said, "stop", Usage(), "key", self.identity), ("key",))


async def repaired(judge: Any, sample: Sample, **more: Any) -> tuple[list[Sample], Context]:
    context = Context(judge, CHUNK)
    return await repair.run(RepairConfig(kind="generate.repair", model="writer", **more), sample, context), context


async def test_what_stands_alone_stays_the_very_same() -> None:
    kept, context = await repaired(Judge("pass"), sample_of())
    assert kept == [sample_of()] and context.counts["pass"] == 1


async def test_what_leans_is_reworded_and_keeps_quotes_marks_and_thoughts() -> None:
    thought = Thought("Varn comes to mind.", LEANING[1]).joined()
    leaning = sample_of(LEANING[0], thought, marks={"split": "train", "thoughts": True})
    judge = Judge("rework", *WHOLE)
    (kept,), _ = await repaired(judge, leaning)
    assert kept.question == WHOLE[0] and parted(kept.answer, kept) == Thought("Varn comes to mind.", WHOLE[1])
    assert kept.marks == leaning.marks and kept.parents == (leaning.id,) and kept.messages[-1].train is True
    assert kept.origin is not None and kept.origin.prompt and kept.origin.calls == ("key",)
    assert "The Varn Lighthouse > History" in judge.asked[0] and "Varn comes to mind" not in judge.asked[0]


async def test_what_only_makes_sense_with_its_text_is_dropped() -> None:
    with pytest.raises(Reject, match="cannot be repaired"):
        await repaired(Judge("fail"), sample_of(*LEANING))


@pytest.mark.parametrize("judge", [Judge("rework", *LEANING), Judge("PASS, certainly"), Judge("not fail")])
async def test_a_verdict_is_one_of_three_words_and_a_rewording_leans_no_more(judge: Judge) -> None:
    with pytest.raises(Reject, match="invalid answer"):
        await repaired(judge, sample_of(*LEANING))


async def test_a_rewording_may_not_give_its_answer_away() -> None:
    with pytest.raises(Reject, match="invalid answer") as caught:
        await repaired(Judge("rework", "Did Edda Moor build the lighthouse at Varn?", "Edda Moor"), sample_of(*LEANING))
    assert "away" in caught.value.detail


async def test_a_question_from_a_file_is_repaired_and_says_the_language_it_is_in_now() -> None:
    judge = Judge("rework", "Wer baute den Leuchtturm in Varn?", "Edda Moor.")
    (kept,), _ = await repaired(judge, sample_of(*LEANING).model_copy(update={"parents": ()}), language="de")
    assert kept.language == "de" and "Topic: -" in judge.asked[0]


async def test_only_what_code_sees_leaning_is_asked_about() -> None:
    judge = Judge("rework", *WHOLE)
    kept, _ = await repaired(judge, sample_of(), leaning_only=True)
    assert kept == [sample_of()] and not judge.asked
    (kept_other,), _ = await repaired(judge, sample_of(*LEANING), leaning_only=True)
    assert kept_other.question == WHOLE[0] and len(judge.asked) == 1


async def test_talks_and_texts_go_on_as_they_are_and_are_counted() -> None:
    talk = sample_of(messages=sample_of().messages * 2)
    text = Sample(form="text", kind="passage", text="The lighthouse.")
    for record in (talk, text):
        judge = Judge("fail")
        kept, context = await repaired(judge, record)
        assert kept == [record] and not judge.asked and context.counts["not one question and one answer"] == 1


@pytest.mark.parametrize(("language", "named"), [(None, "English"), ("de", "German"), ("Welsh", "Welsh")])
async def test_the_language_reaches_the_prompt(language: str | None, named: str) -> None:
    judge = Judge("pass")
    await repaired(judge, sample_of(), language=language)
    assert f"Write in: {named}" in judge.asked[0]


def settings(*messages: str, **more: Any) -> SystemConfig:
    texts = list(messages) or ["You know {{world}}.", "You answer on {{title}}."]
    return SystemConfig(kind="generate.system", messages=texts, **{"context": {"world": "Varn"}, **more})


async def dressed(config: SystemConfig, sample: Sample) -> Sample:
    (given,) = await system.run(config, sample, Context(None, CHUNK))
    return given


async def test_the_message_depends_on_the_id_and_the_seed_alone() -> None:
    pool = [sample_of(f"Who built lighthouse {n}?") for n in range(300)]
    given = [await dressed(settings(drop=0.3), sample) for sample in pool]
    assert [await dressed(settings(drop=0.3), sample) for sample in reversed(pool)] == given[::-1]
    texts = [each.messages[0].content if each.messages[0].role == "system" else None for each in given]
    assert set(texts) == {None, "You know Varn.", "You answer on The Varn Lighthouse."}
    assert 0.2 < texts.count(None) / 300 < 0.4
    for sample, each in zip(pool, given, strict=True):
        assert each.messages[-2:] == sample.messages
        assert each == sample or (each.parents == (sample.id,) and each.messages[0].train is False)
    more = [await dressed(settings(drop=0.5), sample) for sample in pool]  # dropping more moves no other choice
    assert all(
        two.messages in (one.messages, source.messages) for source, one, two in zip(pool, given, more, strict=True)
    )


async def test_a_message_that_is_there_stays_below_and_its_mask_moves_along() -> None:
    passages = Message(role="system", content="[1] The tower.", train=((0, 3),))
    given = await dressed(settings("You know.", drop=0), sample_of(messages=(passages, *sample_of().messages)))
    first = given.messages[0]
    assert first.content == "You know.\n\n[1] The tower." and len(given.messages) == 3
    ((start, end),) = first.train  # type: ignore[misc,union-attr]
    assert first.content[start:end] == "[1]"


async def test_thoughts_are_dropped_with_the_order_to_answer_at_once() -> None:
    joined = Thought("Varn comes to mind.", "Edda Moor did.").joined()
    start = joined.index("Edda")
    spans = sample_of(
        messages=(
            Message(role="user", content=WHOLE[0]),
            Message(role="assistant", content=joined, train=((0, 4), (start, start + 9))),
        ),
        marks={"thoughts": True, "way": "open"},
    )
    config = settings("You know.", drop=0, drop_thoughts=1, at_once="Answer at once.")
    given = await dressed(config, spans)
    assert [message.content for message in given.messages] == [
        "You know.\n\nAnswer at once.",
        WHOLE[0],
        "Edda Moor did.",
    ]
    assert given.messages[-1].train == ((0, 9),) and given.marks == {"way": "open"}
    plain = sample_of(answer=joined)  # without the mark it is a text that happens to say Answer:
    assert (await dressed(config, plain)).messages[-1].content == joined


async def test_a_joined_chat_has_one_message_above_all_its_turns() -> None:
    thought = Thought("Varn comes to mind.", "Edda Moor did.").joined()
    single = [sample_of(f"Who built lighthouse {n}?", thought, marks={"thoughts": True}) for n in range(3)]
    joins = ConverseConfig(kind="curate.converse", turns=3)
    [talk] = converse.run(joins, single, Context(None, CHUNK))  # type: ignore[arg-type]
    assert isinstance(talk, Sample)
    given = await dressed(settings("You know.", drop=0), talk)
    assert given.messages == (Message(role="system", content="You know."), *talk.messages)
    assert given.parents == (talk.id,)
    at_once = await dressed(settings("You know.", drop=0, drop_thoughts=1, at_once="At once."), talk)
    assert [m.content for m in at_once.messages[0::2]] == ["You know.\n\nAt once.", *["Edda Moor did."] * 3]
    assert "thoughts" not in at_once.marks


async def test_what_is_no_chat_or_gets_nothing_stays_the_same() -> None:
    text = Sample(form="text", kind="passage", text="The lighthouse.")
    assert await dressed(settings(drop=0), text) == text
    assert await dressed(settings(drop=1), sample_of()) == sample_of()


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": ["You know {{place}}."]},
        {"messages": []},
        {"messages": ["You know.", " "]},
        {"messages": ["x"], "drop_thoughts": 0.2},
        {"messages": ["x"], "at_once": "Answer."},
        {"messages": ["x"], "drop_thoughts": 0.2, "at_once": "As {{who}} says."},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SystemConfig(kind="generate.system", **wrong)
