"""Talks in which an answer is wrong, is doubted and is put right. Only what puts it right is learned: the wrong answer
is there to be answered to, never to be said. As a preference, the right answer beside the wrong one serves DPO.

structured: the model writes all four lines. line: it writes the right answer, the doubt and the admission; the wrong
answer is the right one with another value in place of the answer, by code.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, create_model

from gristmill.core.errors import Reject
from gristmill.core.records import Message, Origin, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.chat.asked import (
    LONGEST_REPLY,
    Asked,
    around_line,
    asked_of,
    carried,
    check_reply,
    check_silent,
    joined,
    rendered,
    reply_line,
)
from gristmill.generate.chat.stages import CorrectionConfig
from gristmill.generate.source import Source
from gristmill.generate.spans import AnswerSpan, pick
from gristmill.generate.wording import as_words, holds
from gristmill.generate.writer import Writer

_TOKENS = 640


@dataclass(frozen=True)
class Corrected:
    right: str
    wrong: str
    doubt: str
    admission: str
    origin: Origin


def schema(answer: str, question: str) -> type[BaseModel]:
    """The right reply says the answer, the others don't."""
    text = Field(min_length=4, max_length=LONGEST_REPLY)
    right = Annotated[str, text, AfterValidator(lambda said: check_reply(said, answer))]
    silent = Annotated[str, text, AfterValidator(lambda said: check_silent(said, answer))]
    doubt = Annotated[str, text, AfterValidator(lambda said: check_doubt(said, answer, question))]
    admission = Annotated[str, text, AfterValidator(lambda said: check_admission(said, answer))]
    return create_model(
        "Correction", right=(right, ...), wrong=(silent, ...), doubt=(doubt, ...), admission=(admission, ...)
    )


def check_doubt(text: str, answer: str, question: str) -> str:
    """It answers to what was said: the question once again is no doubt."""
    said = check_silent(text, answer)
    if holds(question, said):
        raise ValueError("do not ask the question once more: doubt what the assistant said")
    return said


def check_admission(text: str, answer: str) -> str:
    """It owns the mistake and claims nothing: a number in it would be the wrong one, learned."""
    said = check_silent(text, answer)
    if re.search(r"\d", said):
        raise ValueError("name no number here: the right answer follows")
    return said


async def run(config: CorrectionConfig, record: Sample, ctx: StepContext) -> list[Sample]:
    writer = Writer.of(config, record, ctx)
    asked = asked_of(record, writer.source)
    made = await (_structured if config.ask == "structured" else _lines)(writer, asked)
    question = Message(role="user", content=asked.question)
    right, wrong = (Message(role="assistant", content=text, train=True) for text in (made.right, made.wrong))
    about: dict[str, Any] = {
        "kind": "correction",
        "quotes": record.quotes,
        "language": writer.language.code,
        "parents": (record.id,),
        "marks": carried(record),
        "origin": made.origin,
    }
    talk = (
        question,
        wrong.model_copy(update={"train": False}),
        Message(role="user", content=made.doubt),
        Message(role="assistant", content=f"{made.admission} {made.right}", train=True),
    )
    return [
        Sample(form="chat", messages=talk, **about),
        Sample(form="preference", messages=(question,), chosen=(right,), rejected=(wrong,), **about),
    ]


async def _structured(writer: Writer, asked: Asked) -> Corrected:
    prompt = writer.ctx.prompt("chat_correction")
    parsed = await writer.model.structured(
        rendered(prompt, writer, asked),
        schema(asked.answer, asked.question),
        max_tokens=_TOKENS,
        temperature=writer.config.temperature,
    )
    return Corrected(**parsed.value.model_dump(), origin=writer.origin(prompt, parsed))


async def _lines(writer: Writer, asked: Asked) -> Corrected:
    right = await reply_line(writer, asked, writer.ctx.prompt("chat_reply_line"))
    if right is None:
        raise Reject("no usable reply")
    wrong = falsified(right.text, asked, writer.source, writer.ctx.rng(asked.sample, "wrong"))

    def doubts(text: str, answer: str) -> str:
        return check_doubt(text, answer, asked.question)

    doubt = await around_line(writer, asked, writer.ctx.prompt("chat_doubt_line"), check=doubts, wrong=wrong)
    admission = await around_line(
        writer, asked, writer.ctx.prompt("chat_concede_line"), check=check_admission, wrong=wrong
    )
    if doubt is None or admission is None:
        raise Reject("no usable doubt" if doubt is None else "no usable admission")
    origin = joined(right.origin, doubt.origin, admission.origin)
    return Corrected(right.text, wrong, doubt.text, admission.text, origin)


def falsified(reply: str, asked: Asked, source: Source, rng: random.Random) -> str:
    """The reply with another value for the answer: one of the same kind that stands nearby, or another number."""
    values = _others(reply, asked, source)
    if not values and any(c.isdigit() for c in asked.answer):
        values = [_other_number(asked.answer, rng)]
    if not values:
        raise Reject("no wrong answer of its kind", asked.answer)
    value = rng.choice(values)
    wrong = re.sub(as_words(asked.answer), lambda _: value, reply, flags=re.IGNORECASE)
    if holds(wrong, asked.answer) or wrong == reply:
        raise Reject("no wrong answer of its kind", asked.answer)
    return wrong


def _others(reply: str, asked: Asked, source: Source) -> list[str]:
    """What the same chunk says of the same kind, and neither the question nor the reply says; those that are written
    alike where there are any: a name of two words for a name of two words."""
    kind = next((span.kind for span in _spans(asked.sentence.text, source) if _same(span.text, asked.answer)), None)
    found = {span.text for each in source.sentences for span in _spans(each.text, source) if span.kind == kind}
    said = f"{asked.question} {reply}"
    values = sorted(value for value in found if not holds(said, value) and not holds(value, asked.answer))
    return [value for value in values if _shape(value) == _shape(asked.answer)] or values


def _shape(value: str) -> str:
    """Xx Xx of Tam Hale, 9 x of 41 metres."""
    return re.sub(r"\d+", "9", re.sub(r"[^\W\d_]+", lambda word: "Xx" if word[0][0].isupper() else "x", value))


def _spans(sentence: str, source: Source) -> list[AnswerSpan]:
    return pick(sentence, language=source.chunk.language, names=source.names)


def _same(one: str, other: str) -> bool:
    return one.strip(" .").casefold() == other.strip(" .").casefold()


def _other_number(answer: str, rng: random.Random) -> str:
    """The last number of it, changed by up to a fifth, and by 1 at least."""
    *_, last = re.finditer(r"\d+", answer)
    number = int(last[0])
    least = max(1, number // 5)
    other = number + rng.choice([step for step in range(-least, least + 1) if step and number + step > 0])
    return f"{answer[: last.start()]}{other:0{len(last[0])}d}{answer[last.end() :]}"
