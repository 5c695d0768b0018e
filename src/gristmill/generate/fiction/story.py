"""A conversation between a user and the character of a scene card. The card is the system message; the loss sees what
the character says.

structured: the whole conversation in one answer, its turns made sure of by the schema. line: one message a call, each
written with the card and the conversation so far in view; a small model keeps up with that.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model

from gristmill.core.ask import Model, Parsed
from gristmill.core.errors import Reject
from gristmill.core.prompt import names_of
from gristmill.core.records import Chunk, Draft, Message, Origin, Quote, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.columns import require
from gristmill.generate.fiction.repair import (
    Exchange,
    narrates,
    repaired,
    repeats,
    speaks_as,
    speaks_of_task,
    without_label,
)
from gristmill.generate.fiction.stages import StoryConfig
from gristmill.generate.source import Language, language_of, source_of

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


@dataclass(frozen=True)
class Teller:
    """A model at work on one card."""

    config: StoryConfig
    ctx: StepContext
    model: Model
    card: Card
    quotes: tuple[Quote, ...]  # the passage behind the card; none where a card was made from no text
    language: Language

    @classmethod
    def of(cls, config: StoryConfig, record: Draft, ctx: StepContext) -> Teller:
        chunk = ctx.ancestor(record, Chunk)
        quotes = (source_of(record, ctx).whole(),) if chunk else ()
        language = language_of(config.language, chunk.language if chunk else "en")
        return cls(config, ctx, ctx.model(config.model), card_of(config, record), quotes, language)

    def render(self, prompt: str, **values: object) -> list[Message]:
        shows = self.quotes and self.config.source
        source = f"\nPassage from the book, for its voice:\n{self.quotes[0].text}\n" if shows else ""
        shown = {"card": self.card.text, "source": source, "words": self.config.words, "language": self.language.name}
        return self.ctx.prompt(prompt).render(**shown, **values)

    def origin(self, prompt: str, asked: list[Parsed[Any]]) -> Origin:
        model = asked[0].answer.model if asked else self.model.identity
        calls = tuple(call for parsed in asked for call in parsed.calls)
        return Origin(stage=self.ctx.stage, prompt=self.ctx.prompt(prompt).ref, model=model, calls=calls)


async def run(config: StoryConfig, record: Draft, ctx: StepContext) -> list[Sample]:
    teller = Teller.of(config, record, ctx)
    exchanges, origin = await (_whole if config.ask == "structured" else _lines)(teller, config)
    kept = repaired(exchanges, name=teller.card.name, words=config.words)
    if len(kept) < len(exchanges):
        ctx.count(**{"exchanges cut off": len(exchanges) - len(kept)})
    if len(kept) < min(config.least, config.exchanges):
        raise Reject("story too short", f"{len(kept)} of {len(exchanges)} exchanges are sound")
    messages = [Message(role="system", content=teller.card.text)]
    for exchange in kept:
        messages.append(Message(role="user", content=exchange.user))
        messages.append(Message(role="assistant", content=exchange.reply, train=True))
    return [
        Sample(
            form="chat",
            kind="roleplay",
            messages=tuple(messages),
            quotes=teller.quotes,
            language=teller.language.code,
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


async def _whole(teller: Teller, config: StoryConfig) -> tuple[list[Exchange], Origin]:
    parsed = await teller.model.structured(
        teller.render("fiction_story", name=teller.card.name, exchanges=config.exchanges),
        schema(config.exchanges, config.words),
        max_tokens=60 + 2 * config.exchanges * (config.words * _TOKENS_A_WORD + 20),
        temperature=config.temperature,
    )
    exchanges = [Exchange(turns.user, turns.reply) for turns in parsed.value.exchanges]
    return exchanges, teller.origin("fiction_story", [parsed])


async def _lines(teller: Teller, config: StoryConfig) -> tuple[list[Exchange], Origin]:
    """Message by message, until one cannot be written."""
    said: list[str] = []
    asked: list[Parsed[Any]] = []
    for _ in range(2 * config.exchanges):
        try:
            asked.append(await _next(teller, config, said))
        except Reject as reject:
            teller.ctx.count(**{f"messages with {reject.reason}": 1})
            break
        said.append(asked[-1].value)
    exchanges = [Exchange(*pair) for pair in zip(said[::2], said[1::2], strict=False)]
    return exchanges, teller.origin("fiction_line", asked)


async def _next(teller: Teller, config: StoryConfig, said: list[str]) -> Parsed[str]:
    speakers = ("user", teller.card.name)
    speaks, listens = speakers[len(said) % 2], speakers[1 - len(said) % 2]
    *told, opening = teller.render("fiction_line", speaker=speaks, listener=listens)
    # To each side its own words are the assistant's: a small writer takes its part in a chat, and copies from a script.
    sides = ("user", "assistant") if len(said) % 2 else ("assistant", "user")
    talk = [Message(role=sides[n % 2], content=text) for n, text in enumerate(said)]

    def check(text: str) -> str:
        return _message(text, said, me=speaks, you=listens, words=config.words)

    return await teller.model.ask(
        [*told, *([opening] if speaks == speakers[0] else []), *talk],
        check,
        max_tokens=config.words * _TOKENS_A_WORD,
        temperature=config.temperature,
        sample=len(said),
        attempts=2,
    )


def _message(text: str, said: list[str], *, me: str, you: str, words: int) -> str:
    """One message of one speaker that has not been said yet."""
    text = without_label(text, (me, *me.split()))
    if not text:
        raise ValueError("the message was empty: write what is said")
    if speaks_as(text, (you, me)):
        raise ValueError(f"write one message of {me} and nothing of {you}")
    if narrates(text, me) or (me == "user" and narrates(text, you)):
        raise ValueError(f"write the words that {me} says, in the first person, not what anyone does")
    if len(text.split()) > words:
        raise ValueError(f"that is too long: write at most {words} words")
    if speaks_of_task(text):
        raise ValueError("stay in the scene: nobody there knows of a card, a passage or a task")
    if repeats(text, said):
        raise ValueError("that was said before: say something new")
    return text


def fields(config: StoryConfig, _base: Path, before: frozenset[str] | None) -> frozenset[str] | None:
    """ConfigError where the cards cannot have what is named."""
    require([config.name, *config.card], before)
    return names_of(Sample)
