"""Chat templates: which text of a rendered conversation is structure, and where each message's content stands.

Nothing is searched for. The template is rendered once with a private mark in place of every content; what lies
between the marks is structure. Padding around the marks shows whether the template strips contents. Then the template
is rendered with the real contents and must give exactly the assembled text: one that rewrites contents is refused.

Templates come from model files, so they run in jinja2's immutable sandbox, on plain dicts only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gristmill.core.errors import ConfigError
from gristmill.core.records import Message

_PAD = "\t\n\t"
_LONGEST = 20_000_000  # characters a template may make of one conversation
_DATE = datetime(2024, 7, 26)
"""What `strftime_now` tells templates. Fixed: the same messages are the same tokens tomorrow (Llama's own fallback)."""


class Unwritable(ConfigError):
    """One conversation that the template does not write as it is. Another may be fine."""


@dataclass(frozen=True)
class Slot:
    """How the template treats one message's content."""

    strips_left: bool
    strips_right: bool

    def place(self, content: str) -> tuple[str, int]:
        """The content as it will stand, and how many characters went from its left."""
        right = content.rstrip() if self.strips_right else content
        left = right.lstrip() if self.strips_left else right
        return left, len(right) - len(left)


@dataclass(frozen=True)
class Layout:
    """Structure around contents: `structure[i]` stands before content i, and the last one after them all."""

    structure: tuple[str, ...]
    slots: tuple[Slot, ...]

    def assemble(self, contents: Sequence[str]) -> str:
        placed = [slot.place(content)[0] for slot, content in zip(self.slots, contents, strict=True)]
        return "".join(a + b for a, b in zip(self.structure, [*placed, ""], strict=True))


class ChatTemplate:
    """A compiled template. Layouts are kept by the roles of a conversation: contents cannot change them unnoticed."""

    def __init__(self, source: str, names: dict[str, str]) -> None:
        self.source = source
        self._names = names
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals.update(raise_exception=_refuse, strftime_now=_DATE.strftime)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise ConfigError(f"the chat template is broken: {error}", "Use another file of this model.") from error
        self._layouts: dict[tuple[tuple[str, ...], bool], Layout] = {}

    def layout(self, messages: Sequence[Message], *, generate: bool) -> Layout:
        """Where structure and contents stand for these messages."""
        roles = tuple(m.role for m in messages)
        found = self._layouts.get((roles, generate))
        if found is None:
            found = self._explore(roles, generate)
            if len(self._layouts) >= 256:
                self._layouts.clear()
            self._layouts[roles, generate] = found
        contents = [m.content for m in messages]
        if self._render(roles, contents, generate) != found.assemble(contents):
            raise Unwritable(
                "the model's chat template changes the text of these messages, so their tokens cannot be told apart",
                "Leave out what the template treats in its own way (for example <think> blocks).",
            )
        return found

    def _explore(self, roles: tuple[str, ...], generate: bool) -> Layout:
        marks = [f"\ue000{at}\ue001" for at in range(len(roles))]
        rest = self._render(roles, [_PAD + mark + _PAD for mark in marks], generate)
        structure, slots, stripped_right = [], [], True
        for role, mark in zip(roles, marks, strict=True):
            before, hit, rest = rest.partition(mark)
            if not hit or mark in rest:
                raise Unwritable(
                    f"the model's chat template leaves out or repeats a {role} message",
                    f"Use conversations without this {role} message, or another model.",
                )
            strips_left = not before.endswith(_PAD)
            structure.append(before if strips_left else before[: -len(_PAD)])
            stripped_right = not rest.startswith(_PAD)
            rest = rest if stripped_right else rest[len(_PAD) :]
            slots.append(Slot(strips_left, stripped_right))
        return Layout((*structure, rest), tuple(slots))

    def _render(self, roles: Sequence[str], contents: Sequence[str], generate: bool) -> str:
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        try:
            pieces, size = [], 0
            for piece in self._template.generate(
                **self._names, messages=messages, add_generation_prompt=generate, tools=None, documents=None
            ):
                pieces.append(piece)
                size += len(piece)
                if size > _LONGEST:
                    _refuse("it makes more than 20 million characters")
            return "".join(pieces)
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
            raise Unwritable(
                f"the model's chat template refuses a conversation: {error}",
                f"Its roles are {' → '.join(roles)}: change them or their order, or use another model.",
            ) from error


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """As transformers writes JSON in templates: not escaped for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)
