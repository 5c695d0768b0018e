"""Prompts are files: `@system`, `@user`, `@assistant` on lines of their own, `{{name}}` where a value goes.

Logic-less on purpose: a template engine in a recipe is a way to run code or to eat all memory. An unknown name is an
error before anything is sent, and a value is never read as a template again. Messages before the last `@user` are
examples; the leak filter compares what comes out with them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gristmill.core.errors import ConfigError
from gristmill.core.records import Draft, Message, Record, Sample

_ROLE = re.compile(r"^@(system|user|assistant)[ \t]*$", re.MULTILINE)
_NAME = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


@dataclass(frozen=True)
class Prompt:
    """A parsed prompt file. It is filled once a call: what follows from its text is computed once."""

    name: str
    text: str

    @cached_property
    def hash(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @cached_property
    def ref(self) -> str:
        """What an Origin keeps: name@hash."""
        return f"{self.name}@{self.hash}"

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(_NAME.findall(self.text))

    @cached_property
    def parts(self) -> list[Message]:
        """The messages as written, with their placeholders."""
        pieces = _ROLE.split(self.text)
        if pieces[0].strip() or len(pieces) < 3:
            raise ConfigError(
                f"prompt {self.name} does not start with a role",
                "Begin each message with @system, @user or @assistant on a line of its own.",
            )
        parts = [Message(role=r, content=t.strip()) for r, t in zip(pieces[1::2], pieces[2::2], strict=True)]
        if parts[-1].role != "user":
            raise ConfigError(f"prompt {self.name} does not end with a user message", "End it with an @user message.")
        return parts

    @property
    def examples(self) -> list[str]:
        """The texts of the worked examples: every user and assistant message before the last one."""
        return [m.content for m in self.parts[:-1] if m.role != "system"]

    @property
    def instructions(self) -> str:
        """What it tells the model to do, and in what words."""
        return "\n".join(m.content for m in self.parts if m.role == "system")

    def render(self, **values: object) -> list[Message]:
        """The messages with every name filled in. A name without a value is a ConfigError."""
        missing = self.names - values.keys()
        if missing:
            raise ConfigError(
                f"prompt {self.name} uses unknown names: {', '.join(sorted(missing))}",
                f"Known here: {', '.join(sorted(values))}.",
            )
        return [Message(role=m.role, content=_NAME.sub(lambda hit: str(values[hit[1]]), m.content)) for m in self.parts]


def read_prompt(name: str, path: Path) -> Prompt:
    try:
        prompt = Prompt(name, path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        message = f"prompt {name}: cannot read {path}: {error}"
        raise ConfigError(message, "Give the path of a UTF-8 text file.") from error
    _ = prompt.parts  # a malformed file is refused when it is read, not when it is used
    return prompt


def own_prompt(name: str, text: str, *, system: str | None = None) -> Prompt:
    """A prompt that a recipe brings: written like a prompt file, or plain text, which is one user message."""
    if not _ROLE.match(text.lstrip()):
        text = f"@user\n{text}"
    prompt = Prompt(name, f"@system\n{system}\n{text}" if system else text)
    _ = prompt.parts
    return prompt


def fields_of(record: Record) -> Mapping[str, Any]:
    """What a prompt may name of a record: of a draft its data, of others their content, of a sample question and answer
    too."""
    if isinstance(record, Draft):
        return record.data
    values = record.content()
    return {**values, "question": record.question, "answer": record.answer} if isinstance(record, Sample) else values


def names_of(kind: type[Record]) -> frozenset[str] | None:
    """The names that `fields_of` finds in every record of a type; None where each record has its own."""
    if issubclass(kind, Draft):
        return None
    own = kind.model_fields.keys() - Record.model_fields.keys()
    return frozenset(own | {"question", "answer"} if issubclass(kind, Sample) else own)


def names_in(found: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    """All names of several sources; None where one of them cannot be known."""
    known = list(found)
    return None if not known or None in known else frozenset().union(*(names for names in known if names))
