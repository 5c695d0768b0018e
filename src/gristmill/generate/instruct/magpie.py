"""Magpie (Xu et al. 2024, arXiv 2406.08464): an instruct model, given nothing but the tokens that open a user's turn,
writes what a user would say. No prompt and no seeds: the instructions are the model's own.

The tokens come from the one renderer, so they are those that the model was trained with. What stands behind an address
has no template here: its recipe says the opening as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from gristmill.core.errors import ConfigError, Reject
from gristmill.core.records import Draft, Message, Origin, Record
from gristmill.core.stage import PassContext, PassResult, StepContext
from gristmill.generate.instruct.stages import MagpieConfig
from gristmill.generate.instruct.wording import check_instruction
from gristmill.generate.source import language_of
from gristmill.models.renderer import Renderer

_TOKENS_A_WORD = 3


def openings(config: MagpieConfig, _records: Iterable[Record], ctx: PassContext) -> PassResult:
    """One for each row: the same, or those of the system messages in turn; the number makes another draw of it."""
    given = [config.opening] if config.opening is not None else _of_template(config, ctx)
    for number in range(config.rows):
        yield Draft(kind="opening", data={"number": number, "opening": given[number % len(given)]})


def _of_template(config: MagpieConfig, ctx: PassContext) -> list[JsonValue]:
    try:
        renderer = Renderer.load(ctx.weights(config.model))
    except ConfigError as error:
        raise ConfigError(error.message, "Say the text that opens a user's turn: `opening`.") from error
    before = [[Message(role="system", content=text)] for text in _told(config)] or [[]]
    return [list(renderer.opening(messages)) for messages in before]


def _told(config: MagpieConfig) -> list[str]:
    """The system messages; a language stands at the end of each, of the user too: it is their turn that is written."""
    if config.language is None:
        return config.system
    name = language_of(config.language, "").name
    return [f"{text}\n\nThe user writes in {name}. Write in {name}.".strip() for text in config.system or [""]]


async def write(config: MagpieConfig, record: Draft, ctx: StepContext) -> list[Draft]:
    opening = cast(str | list[int], record.data["opening"])
    answer = await ctx.model(config.model).complete(
        opening,
        max_tokens=config.words * _TOKENS_A_WORD,
        temperature=config.temperature,
        sample=int(str(record.data["number"])),
    )
    if answer.finish == "length":
        raise Reject("truncated answer", answer.text[-200:])
    try:
        text = check_instruction(answer.text, most=config.words)
    except ValueError as error:
        raise Reject("no instruction", f"{error}: {answer.text[:200]}") from error
    origin = Origin(stage=ctx.stage, model=answer.model, calls=(answer.key,))
    spoken: dict[str, JsonValue] = {"language": language_of(config.language, "").code} if config.language else {}
    return [Draft(kind="row", data={"instruction": text, **spoken}, parents=(record.id,), origin=origin)]


def fields(config: MagpieConfig, _base: Path, _before: frozenset[str] | None) -> frozenset[str] | None:
    return frozenset({"instruction", "language"} if config.language else {"instruction"})
