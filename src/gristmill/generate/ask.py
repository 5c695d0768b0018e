"""The general step: one prompt, filled from a record's fields, asked of a model.

A row in gives a row out, the answer in a new column (or in several, by type); or a chat sample of what was asked and
answered. What the prompt names and no record can have is found by `check`; what only this record lacks costs this
record alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson
from pydantic import BaseModel, model_validator

from gristmill.core.ask import Model, Parsed
from gristmill.core.errors import ConfigError, Reject
from gristmill.core.prompt import Prompt, fields_of, names_of, own_prompt
from gristmill.core.records import Draft, Message, Origin, Record, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.answer_fields import answer_model, counted
from gristmill.generate.answer_rules import check as check_rule
from gristmill.generate.answer_rules import names_in
from gristmill.generate.source import language_of, quotes_of
from gristmill.generate.stages import AskConfig
from gristmill.generate.wording import holds

NAME = "ask"
LANGUAGE = "language"
"""What `{{language}}` stands for is the language to write in, by name; a column of that name says which. A row that is
written in the recipe's language says so there from then on: samples made of it are in that language."""


def prompt(config: AskConfig, base: Path) -> Prompt:
    """The recipe's own prompt; in the run's folder and in every origin it is `ask@hash`."""
    text = config.prompt
    if config.prompt_file is not None:
        try:
            text = (base / config.prompt_file).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {config.prompt_file}: {error}", "Give a UTF-8 text file.") from error
    return own_prompt(NAME, text or "", system=config.system)


def fields(config: AskConfig, base: Path, before: frozenset[str] | None) -> frozenset[str] | None:
    """The names in what it gives. ConfigError where the prompt names, or the answer takes, a name it cannot."""
    if before is not None:
        known = f"Known here: {', '.join(sorted(before))}."
        if unknown := prompt(config, base).names - before - {LANGUAGE}:
            raise ConfigError(f"the prompt uses unknown names: {', '.join(sorted(unknown))}", known)
        if unknown := frozenset(config.mentions) - before:
            raise ConfigError(f"`mentions` names unknown fields: {', '.join(sorted(unknown))}", known)
        if unknown := _compared(config, before) - before:
            raise ConfigError(f"`rules` compares unknown names: {', '.join(sorted(unknown))}", known)
        if config.gives == "row" and (taken := config.added & before):
            raise ConfigError(f"the rows already have {', '.join(sorted(taken))}", "Call the answer something else.")
    if config.gives == "sample":
        return names_of(Sample)
    told = frozenset({LANGUAGE} if config.language else ())
    return before and before | config.added | told


def _compared(config: AskConfig, before: frozenset[str]) -> frozenset[str]:
    """The names in `rules` that are no part of the answer."""
    known = before | config.added
    return frozenset(name for rule in config.rules for name in names_in(rule, known)) - config.added


async def run(config: AskConfig, record: Record, ctx: StepContext) -> list[Draft] | list[Sample]:
    """Of several samples those that came well are given; the record is dropped only when none did."""
    values, prompt, model = fields_of(record), ctx.prompt(NAME), ctx.model(config.model)
    if config.gives == "row" and (taken := config.added & values.keys()):
        raise Reject("column is there already", ", ".join(sorted(taken)))
    language = language_of(config.language, str(values.get(LANGUAGE) or "en"))
    shown = {name: language.name if name == LANGUAGE else _shown(name, values) for name in prompt.names}
    messages, check = prompt.render(**shown), _Check(config, values)
    made: dict[str, Any] = {}
    for sample in range(config.samples):
        try:
            parsed = await _asked(check, model, messages, sample)
        except Reject as reject:
            if sample == config.samples - 1 and not made:
                raise
            ctx.count(**{f"samples with {reject.reason}": 1})
            continue
        origin = Origin(stage=ctx.stage, prompt=prompt.ref, model=parsed.answer.model, calls=parsed.calls)
        if config.gives == "row":
            told = {LANGUAGE: language.code} if config.language else {}
            given: Record = _row(config, record, {**values, **told}, parsed.value, origin)
        else:
            given = Sample(
                form="chat",
                kind="ask",
                messages=_talk(config, messages, parsed.value),
                quotes=quotes_of(record, ctx),
                language=language.code,
                parents=(record.id,),
                origin=origin,
            )
        made[given.id] = given  # two samples may say the same
    return list(made.values())


def _shown(name: str, values: Mapping[str, Any]) -> str:
    """Text as it stands, everything else as JSON."""
    value = values.get(name)
    if value is None:
        raise Reject(f"no value for {name}", f"the record has {', '.join(values)}"[:200])
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _texts(parts: list[Any]) -> Iterator[str]:
    """What is said in the parts of an answer, in lists too."""
    for part in parts:
        yield from _texts(part) if isinstance(part, list) else [str(part)]


@dataclass(frozen=True)
class _Check:
    """What an answer must be besides well-formed. A ValueError tells the model what to mend."""

    config: AskConfig
    record: Mapping[str, Any]

    def said(self, text: str) -> str:
        if not (said := text.strip()):
            raise ValueError("the answer is empty")
        counted(said, self.config.min_words, self.config.max_words)
        self._wording(said)
        return said

    def parts(self, answer: BaseModel) -> None:
        parts = answer.model_dump(by_alias=True)
        for rule in self.config.rules:
            check_rule(rule, {**self.record, **parts})
        self._wording("\n".join(_texts(list(parts.values()))))

    def _wording(self, text: str) -> None:
        for name in self.config.mentions:
            if not holds(text, words := _shown(name, self.record)):
                raise ValueError(f"the answer does not mention {words!r}: use these very words")
        for phrase in self.config.without:
            if phrase.casefold() in text.casefold():
                raise ValueError(f"the answer holds {phrase!r}: write it without")


async def _asked(check: _Check, model: Model, messages: list[Message], sample: int) -> Parsed[Any]:
    """The answer's text, or its parts by name."""
    config = check.config
    how: dict[str, Any] = {"max_tokens": config.max_tokens, "temperature": config.temperature, "sample": sample}
    if config.fields is None:
        return await model.ask(messages, check.said, **how)
    schema = answer_model(tuple(config.fields.items()))
    if config.rules or config.mentions or config.without:
        schema = _bound(schema, check)
    return await model.structured(messages, schema, **how)


def _bound(schema: type[BaseModel], check: _Check) -> type[BaseModel]:
    """The same schema, whose answers are checked against the record they are for."""

    class Answer(schema):  # type: ignore[valid-type,misc]
        @model_validator(mode="after")
        def _holds(self) -> Self:
            check.parts(self)
            return self

    return Answer


def _row(config: AskConfig, record: Record, values: Mapping[str, Any], answer: Any, origin: Origin) -> Draft:
    parts = {config.column or "answer": answer} if config.fields is None else answer.model_dump(by_alias=True)
    return Draft(kind="row", data={**values, **parts}, parents=(record.id,), origin=origin)


def _talk(config: AskConfig, messages: list[Message], answer: Any) -> tuple[Message, ...]:
    """The system message, the question and the answer, which the loss sees; not the prompt's worked examples."""
    text = answer if config.fields is None else answer.model_dump_json(by_alias=True)
    asked = [message for message in messages[:-1] if message.role == "system"] + messages[-1:]
    return (*asked, Message(role="assistant", content=text, train=True))
