"""Rows to training samples. Which words a label is about is found by code: they stand in the text once, or the row is
no sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.errors import ConfigError, Reject
from gristmill.core.prompt import Prompt, names_of
from gristmill.core.records import Draft, Message, Origin, Sample, Span
from gristmill.core.stage import StepContext
from gristmill.generate.source import language_of, quotes_of
from gristmill.generate.tables.stages import SampleConfig
from gristmill.generate.wording import places

_TEXTS = ("text", "system", "user", "assistant")
_COLUMNS = ("label", "span", "turns")


def fields(config: SampleConfig, _base: Path, before: frozenset[str] | None) -> frozenset[str] | None:
    """What a prompt may name of a sample. ConfigError where a column is named that no row has."""
    texts = [getattr(config, name) for name in _TEXTS if getattr(config, name)]
    wanted = {name for text in texts for name in Prompt("text", text).names}
    wanted |= {getattr(config, name) for name in _COLUMNS if getattr(config, name)}
    if before is not None and (unknown := wanted - before):
        known = f"Known here: {', '.join(sorted(before))}."
        raise ConfigError(f"no column of the rows is called {', '.join(sorted(unknown))}", known)
    return names_of(Sample)


async def run(config: SampleConfig, record: Draft, ctx: StepContext) -> list[Sample]:
    row = record.data
    origin = (record.origin or Origin(stage=ctx.stage)).model_copy(update={"stage": ctx.stage})
    common: dict[str, Any] = {
        "form": config.form,
        "kind": config.sample_kind or ctx.stage,
        "language": language_of(None, str(row.get("language") or config.language)).code,
        "quotes": quotes_of(record, ctx),
        "parents": (record.id,),
        "origin": origin,
    }
    if config.form == "chat":
        return [Sample(**common, messages=_chat(config, row))]
    text = _filled(config.text or "", row)
    if config.form == "text":
        return [Sample(**common, text=text)]
    spans = (only(_cell(config.span, row), text),) if config.span else ()
    return [Sample(**common, text=text, label=_cell(config.label or "", row), spans=spans)]


def only(words: str, text: str) -> Span:
    """Where some words stand in a text, if they stand there once."""
    found = places(text, words)
    if len(found) != 1:
        raise Reject("span not once in its text", f"{words!r}, {len(found)} times in: {text[:200]}")
    return found[0]


def _chat(config: SampleConfig, row: Mapping[str, Any]) -> tuple[Message, ...]:
    system = (Message(role="system", content=_filled(config.system, row)),) if config.system else ()
    if not config.turns:
        asked = Message(role="user", content=_filled(config.user or "", row))
        return (*system, asked, Message(role="assistant", content=_filled(config.assistant or "", row), train=True))
    turns = row.get(config.turns)
    if not isinstance(turns, list) or len(turns) < 2 or not all(isinstance(t, str) and t.strip() for t in turns):
        raise Reject("turns that are no conversation", str(turns)[:200])
    said = turns[: len(turns) // 2 * 2]  # what the user says last is answered by nobody
    return system + tuple(
        Message(role="assistant" if at % 2 else "user", content=turn.strip(), train=bool(at % 2))
        for at, turn in enumerate(said)
    )


def _filled(text: str, row: Mapping[str, Any]) -> str:
    prompt = Prompt("text", f"@user\n{text}")
    return prompt.render(**{name: _cell(name, row) for name in prompt.names})[0].content


def _cell(name: str, row: Mapping[str, Any]) -> str:
    value = row.get(name)
    if value is None or value == "":
        raise Reject(f"no value for {name}", f"the row has {', '.join(row)}"[:200])
    return value if isinstance(value, str) else orjson.dumps(value).decode()
