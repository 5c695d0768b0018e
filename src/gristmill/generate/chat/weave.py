"""Questions of one place, woven into a conversation: the later ones may lean on the earlier, as people's do.

No conversation asks for the same fact twice: further wordings of it go into further conversations. Each turn's answer
is checked by code.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, create_model

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Draft, Message, Origin, Record, Sample, digest_of
from gristmill.core.stage import Dropped, PassContext, PassResult, StepContext
from gristmill.core.thoughts import parted
from gristmill.generate.chat.asked import (
    LONGEST_REPLY,
    Asked,
    asked_of,
    carried,
    check_said,
    check_silent,
    is_question,
    joined,
    says,
)
from gristmill.generate.chat.stages import WeaveConfig
from gristmill.generate.wording import holds, one_line
from gristmill.generate.writer import Writer

LEAST = 2
"""Turns of a conversation."""

_TURN_TOKENS = 240


class Turn(BaseModel):
    user: Annotated[str, Field(min_length=2, max_length=300)]
    assistant: Annotated[str, Field(min_length=2, max_length=LONGEST_REPLY)]


def schema(asked: list[Asked]) -> type[BaseModel]:
    """A turn for each question, in order: the user doesn't say its answer, the assistant does."""

    def fits(turns: list[Turn]) -> list[Turn]:
        for number, (turn, one) in enumerate(zip(turns, asked, strict=True), 1):
            try:
                check_silent(turn.user, one.answer)
                check_answered(turn.assistant, one.answer)
            except ValueError as error:
                raise ValueError(f"turn {number}: {error}") from error
        return turns

    items = Annotated[list[Turn], Field(min_length=len(asked), max_length=len(asked)), AfterValidator(fits)]
    return create_model("Conversation", turns=(items, ...))


def check_answered(text: str, answer: str) -> str:
    said = check_said(text)
    if not says(said, answer):
        raise ValueError(f"the assistant must say the answer: {answer!r}")
    return said


def gather(config: WeaveConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """The questions of each conversation, in reading order. Only what may be trained on, and no place alone."""
    places: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for record in records:
        if not isinstance(record, Sample) or not is_question(record):
            yield Dropped(record, "no single question with a quoted answer")
        elif record.marks.get("split", "train") != "train":
            yield Dropped(record, "held out from training")
        elif (chunk := ctx.ancestor(record, Chunk)) is None:
            yield Dropped(record, "no chunk")
        else:
            places[chunk.id, record.language].append(record)
    for key in sorted(places):
        for group in _conversations(places[key], config.turns, ctx.seed):
            if len(group) < LEAST:
                yield from (Dropped(sample, "alone in its place") for sample in group)
            else:
                yield Draft(kind="talk", data={"turns": len(group)}, parents=tuple(sample.id for sample in group))


def _conversations(pool: list[Sample], turns: int, seed: int) -> Iterator[list[Sample]]:
    """The first wording of every fact, then the second of every fact that has one …, each cut into equal parts."""
    facts: dict[tuple[object, str], list[Sample]] = defaultdict(list)
    for sample in sorted(pool, key=lambda sample: digest_of([seed, sample.id])):
        facts[_place(sample), parted(sample.answer, sample).answer.casefold()].append(sample)
    for wordings in zip_longest(*facts.values()):
        members = sorted((sample for sample in wordings if sample), key=lambda sample: (_place(sample), sample.id))
        parts = -(-len(members) // turns)
        size, more = divmod(len(members), parts)
        start = 0
        for part in range(parts):
            end = start + size + (part < more)
            yield members[start:end]
            start = end


def _place(sample: Sample) -> tuple[str, int, int]:
    return sample.quotes[0].path, sample.quotes[0].start, sample.quotes[0].end


async def run(config: WeaveConfig, record: Draft, ctx: StepContext) -> list[Sample]:
    writer = Writer.of(config, record, ctx)
    members = {sample.id: sample for sample in ctx.ancestors(record, Sample)}
    asked = [asked_of(members[each], writer.source) for each in record.parents]
    tone = ctx.rng(record, "tone").choice(config.tones)
    turns, origin = await (_structured if config.ask == "structured" else _lines)(writer, asked, tone)
    if len(turns) < LEAST:
        raise Reject("no usable conversation", f"{len(turns)} of {len(asked)} turns could be used")
    quotes = dict.fromkeys(quote for one, _ in turns for quote in one.sample.quotes)
    said = [(("user", turn.user), ("assistant", turn.assistant)) for _, turn in turns]
    return [
        Sample(
            form="chat",
            kind="weave",
            messages=tuple(
                Message(role=role, content=text, train=role == "assistant") for pair in said for role, text in pair
            ),
            quotes=tuple(quotes),
            language=writer.language.code,
            parents=(record.id,),
            marks={**carried(asked[0].sample), "tone": tone},
            origin=origin,
        )
    ]


async def _structured(writer: Writer, asked: list[Asked], tone: str) -> tuple[list[tuple[Asked, Turn]], Origin]:
    prompt = writer.ctx.prompt("chat_weave")
    listed = "\n".join(f"{n}. {one.question} — {one.answer}" for n, one in enumerate(asked, 1))
    parsed = await writer.model.structured(
        prompt.render(
            place=writer.source.place,
            sentences="\n".join(dict.fromkeys(one.sentence.text for one in asked)),
            questions=listed,
            tone=tone,
            language=writer.language.name,
        ),
        schema(asked),
        max_tokens=60 + _TURN_TOKENS * len(asked),
        temperature=writer.config.temperature,
    )
    turns: list[Turn] = parsed.value.turns  # type: ignore[attr-defined]
    return list(zip(asked, turns, strict=True)), writer.origin(prompt, parsed)


async def _lines(writer: Writer, asked: list[Asked], tone: str) -> tuple[list[tuple[Asked, Turn]], Origin]:
    """Line by line, each said in view of the talk so far. A turn of which a line fails is left out."""
    user, reply = writer.ctx.prompt("chat_weave_user_line"), writer.ctx.prompt("chat_weave_reply_line")
    turns: list[tuple[Asked, Turn]] = []
    origins: list[Origin] = []
    for one in asked:
        values: dict[str, Any] = {**one.values, "tone": tone, "talk": _talk([turn for _, turn in turns])}

        def answered(text: str, answer: str = one.answer) -> str:
            return check_answered(one_line(text), answer)

        def silent(text: str, answer: str = one.answer) -> str:
            said = check_silent(one_line(text), answer)
            if any(holds(said, turn.user) for _, turn in turns):
                raise ValueError("that was asked before: say what comes next, alone")
            return said

        question = await writer.line(user, one.sentence, silent, **values)
        if question is None:
            continue
        answer = await writer.line(reply, one.sentence, answered, **values | {"question": question.text})
        if answer is not None:
            turns.append((one, Turn(user=question.text, assistant=answer.text)))
            origins += [answer.origin, question.origin]
    if not origins:
        raise Reject("no usable conversation", "no line could be used")
    return turns, joined(*origins)


def _talk(turns: list[Turn]) -> str:
    """The last two turns: enough to lean on."""
    return "\n".join(f"User: {turn.user}\nAssistant: {turn.assistant}" for turn in turns[-2:]) or "-"
