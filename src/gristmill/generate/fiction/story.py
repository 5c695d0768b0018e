"""A conversation between a user and the character of a scene card. The card is the system message; the loss sees what
the character says.

structured: the whole conversation in one answer, its turns made sure of by the schema. line: one message a call, each
written with the card and the conversation so far in view; a small model keeps up with that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, create_model

from gristmill.core.ask import Parsed
from gristmill.core.errors import Reject
from gristmill.core.prompt import names_of
from gristmill.core.records import Draft, Message, Origin, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.columns import require
from gristmill.generate.fiction.repair import Exchange, repaired, speaks_as, without_label
from gristmill.generate.fiction.stages import StoryConfig
from gristmill.generate.writer import Writer

_TOKENS_A_WORD = 3  # at most, of prose in most languages
_CHARACTERS_A_WORD = 8


class Turns(BaseModel):
    user: str
    reply: str


class Conversation(BaseModel):
    """The answer's shape; `schema` bounds it by what was asked."""

    exchanges: list[Turns]


def schema(exchanges: int, words: int) -> type[Conversation]:
    text = Annotated[str, Field(min_length=1, max_length=words * _CHARACTERS_A_WORD)]
    turns = create_model("Turns", __base__=Turns, user=(text, ...), reply=(text, ...))
    items = Annotated[list[turns], Field(min_length=1, max_length=exchanges)]
    return create_model("Conversation", __base__=Conversation, exchanges=(items, ...))


@dataclass(frozen=True)
class Card:
    name: str
    text: str


async def run(config: StoryConfig, record: Draft, ctx: StepContext) -> list[Sample]:
    writer, card = Writer.of(config, record, ctx), card_of(config, record)
    exchanges, origin = await (_whole if config.ask == "structured" else _lines)(writer, config, card)
    kept = repaired(exchanges, name=card.name, words=config.words)
    if len(kept) < len(exchanges):
        ctx.count(**{"exchanges cut off": len(exchanges) - len(kept)})
    if len(kept) < min(config.least, config.exchanges):
        raise Reject("story too short", f"{len(kept)} of {len(exchanges)} exchanges are sound")
    messages = [Message(role="system", content=card.text)]
    for exchange in kept:
        messages.append(Message(role="user", content=exchange.user))
        messages.append(Message(role="assistant", content=exchange.reply, train=True))
    return [
        Sample(
            form="chat",
            kind="roleplay",
            messages=tuple(messages),
            quotes=(writer.source.whole(),),
            language=writer.language.code,
            parents=(record.id,),
            origin=origin,
        )
    ]


def card_of(config: StoryConfig, record: Draft) -> Card:
    """The columns of the card, a line each, under the names that the recipe gave them."""
    shown = {column: record.data.get(column) for column in config.card}
    if missing := next((column for column, value in shown.items() if value in (None, "", [])), ""):
        raise Reject(f"no value for {missing}")
    lines = [f"{column.replace('_', ' ').capitalize()}: {_said(value)}" for column, value in shown.items()]
    return Card(" ".join(str(record.data.get(config.name, "")).split()), "\n".join(lines))


def _said(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else " ".join(str(value).split())


async def _whole(writer: Writer, config: StoryConfig, card: Card) -> tuple[list[Exchange], Origin]:
    prompt = writer.ctx.prompt("fiction_story")
    parsed = await writer.model.structured(
        prompt.render(
            card=card.text,
            name=card.name,
            source=writer.source.chunk.text if config.source else "-",
            exchanges=config.exchanges,
            words=config.words,
            language=writer.language.name,
        ),
        schema(config.exchanges, config.words),
        max_tokens=60 + 2 * config.exchanges * (config.words * _TOKENS_A_WORD + 20),
        temperature=config.temperature,
    )
    exchanges = [Exchange(turns.user, turns.reply) for turns in parsed.value.exchanges]
    return exchanges, writer.origin(prompt, parsed)


async def _lines(writer: Writer, config: StoryConfig, card: Card) -> tuple[list[Exchange], Origin]:
    """Message by message, until one cannot be written."""
    said: list[str] = []
    asked: list[Parsed[str]] = []
    for _ in range(2 * config.exchanges):
        try:
            asked.append(await _next(writer, config, card, said))
        except Reject as reject:
            writer.ctx.count(**{f"messages with {reject.reason}": 1})
            break
        said.append(asked[-1].value)
    model = asked[0].answer.model if asked else writer.model.identity
    calls = tuple(call for parsed in asked for call in parsed.calls)
    exchanges = [Exchange(*pair) for pair in zip(said[::2], said[1::2], strict=False)]
    return exchanges, Origin(
        stage=writer.ctx.stage, prompt=writer.ctx.prompt("fiction_line").ref, model=model, calls=calls
    )


async def _next(writer: Writer, config: StoryConfig, card: Card, said: list[str]) -> Parsed[str]:
    speakers = ("user", card.name)
    speaks, listens = speakers[len(said) % 2], speakers[1 - len(said) % 2]

    def check(text: str) -> str:
        return _message(text, said, me=speaks, you=listens, words=config.words)

    return await writer.model.ask(
        writer.ctx.prompt("fiction_line").render(
            card=card.text,
            source=writer.source.chunk.text if config.source else "-",
            talk="\n".join(f"{speakers[n % 2]}: {text}" for n, text in enumerate(said)) or "-",
            speaker=speaks,
            listener=listens,
            words=config.words,
            language=writer.language.name,
        ),
        check,
        max_tokens=config.words * _TOKENS_A_WORD,
        temperature=config.temperature,
        sample=len(said),
        attempts=2,
    )


def _message(text: str, said: list[str], *, me: str, you: str, words: int) -> str:
    """One message of one speaker that has not been said yet."""
    text = without_label(text, (me,))
    if not text:
        raise ValueError("the message was empty: write what is said")
    if speaks_as(text, (you, me)):
        raise ValueError(f"write one message of {me} and nothing of {you}")
    if len(text.split()) > words:
        raise ValueError(f"that is too long: write at most {words} words")
    if text.casefold() in (before.casefold() for before in said):
        raise ValueError("that was said before: say something new")
    return text


def fields(config: StoryConfig, _base: Path, before: frozenset[str] | None) -> frozenset[str] | None:
    """ConfigError where the cards cannot have what is named."""
    require([config.name, *config.card], before)
    return names_of(Sample)
