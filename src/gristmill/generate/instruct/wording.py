"""What an instruction must be before it becomes a row, and in which language it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from gristmill.generate.source import Language, language_of
from gristmill.generate.wording import word_count

_BULLET = re.compile(r"^(?:[-*\u2022]|\d{1,3}[.)])\s+")
_LABEL = re.compile(
    r"^(?:(?:\*\*)?(?:(?:new |rewritten |evolved )?(?:instruction|prompt|task|request|question|user|q)\s*\d*\s*:"
    r"|write in:\s*\w+\b)(?:\*\*)?\s*)+",
    re.I,
)
_META = re.compile(
    r"\b(?:given|rewritten|created|original|new|evolved|above) (?:prompt|instruction|task|request)\b|<\|[^|>\s]+\|>",
    re.I,
)
_LOOP = re.compile(r"(\b\w+(?:\W+\w+){0,7})(?:\W+\1\b){3,}", re.I)


def check_instruction(text: str, *, most: int) -> str:
    """One instruction, without labels before it (its prompt's own among them) or quotation marks around it; at most so
    many words."""
    text = text.strip()
    if "\n" not in text:  # else it may be the first of a list
        text = _BULLET.sub("", text)
    text = _LABEL.sub("", text).strip()
    if len(text) > 1 and text[0] + text[-1] in ('""', "\u201c\u201d", "\u00ab\u00bb", "\u201e\u201c"):
        text = text[1:-1].strip()
    if word_count(text) < 3:
        raise ValueError("that is no instruction: say in a sentence or more what is to be done")
    if word_count(text) > most:
        raise ValueError(f"that is too long: write at most {most} words")
    if _META.search(text):
        raise ValueError("write the instruction alone; do not speak of instructions or prompts")
    if _LOOP.search(text):
        raise ValueError("it repeats itself: say everything once")
    return text


def language_for(wanted: str | None, row: Mapping[str, Any]) -> Language:
    """The recipe's language, the row's own, or English."""
    return language_of(wanted, str(row.get("language") or "en"))
