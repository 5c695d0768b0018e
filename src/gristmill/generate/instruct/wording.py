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
_CHAT = re.compile(
    r"(?:certainly|sure(?: thing)?|of course|absolutely|nat\u00fcrlich|selbstverst\u00e4ndlich|bien s\u00fbr|claro"
    r"|por supuesto|certo|certamente)(?:\s*[!,.:;\u2014]|\s+[-\u2013]\s|\s+(?=here\b|i\b))"
    r"|here(?:['\u2019]s|\s+is|\s+are)\b(?!\s+(?:my|our)\b)"
    r"|i(?:['\u2019]m|\s+am|['\u2019]d be|\s+would be)\s+(?:ready|happy|glad|here)\s+to\s+"
    r"(?:(?:assist|answer|follow|translate|receive|provide|respond|proceed)\b"
    r"|(?:help|begin|start)(?=\s+you\b|\s+with\b|\s*[.!,]))"
    r"|(?:please\s+)?(?:provide|share|send)\s(?:[^.!?]*\s)?(?:instructions?|prompts?|tasks?|texts?|questions?)\s"
    r"[^.!?]*\byou(?:['\u2019]d|\s+would)\s+like\s+me\s+to\b",
    re.I,
)
"""How an assistant opens; who asks for something says what it is. "Here are my notes" is left to them."""
_ITEM = re.compile(r"(?<!\S)\**(?:(?:instruction|prompt|task|request)\s+)?(\d{1,3})[.):]\**\s+(?=\S)", re.I)
_HEADING = re.compile(
    r"(?:\W*(?:the|some|more|other|new|further|\d{1,3}|two|three|four|five)\b)*\W*"
    r"(?:instructions|prompts|tasks|requests)\b[^.!?:\n]{0,60}:\s*",
    re.I,
)
_LOOP = re.compile(r"(\b\w+(?:\W+\w+){0,7})(?:\W+\1\b){3,}", re.I)


def check_instruction(text: str, *, most: int, before: str = "") -> str:
    """One instruction, without labels before it (its prompt's own among them) or quotation marks around it; at most so
    many words. One that was made of `before` may open as that does."""
    text = text.strip()
    if _several(text) or _several(_LABEL.sub("", text)):
        raise ValueError("those are several: write one instruction, not a list of them")
    if "\n" not in text:  # else it may be the first of a list
        text = _BULLET.sub("", text)
    text = _LABEL.sub("", text).strip()
    if len(text) > 1 and text[0] + text[-1] in ('""', "\u201c\u201d", "\u00ab\u00bb", "\u201e\u201c"):
        text = text[1:-1].strip()
    if word_count(text) < 3:
        raise ValueError("that is no instruction: say in a sentence or more what is to be done")
    if word_count(text) > most:
        raise ValueError(f"that is too long: write at most {most} words")
    if _CHAT.match(text) and not _CHAT.match(before.strip()):
        raise ValueError("that opens like an answer in a chat: write the instruction alone, as the person who asks it")
    if _META.search(text):
        raise ValueError("write the instruction alone; do not speak of instructions or prompts")
    if _LOOP.search(text):
        raise ValueError("it repeats itself: say everything once")
    return text


def _several(text: str) -> bool:
    """A numbered list from the first word, or a heading of instructions, to the last line. A list that something else
    leads in, or that something is asked about below it, belongs to one instruction."""
    heading = _HEADING.match(text)
    listed = text[heading.end() :] if heading else text
    first = _ITEM.match(listed)
    numbers = {int(item[1]) for item in _ITEM.finditer(listed)}
    last = listed.rpartition("\n")[2]
    return first is not None and int(first[1]) + 1 in numbers and _ITEM.search(last) is not None


def language_for(wanted: str | None, row: Mapping[str, Any]) -> Language:
    """The recipe's language, the row's own, or English."""
    return language_of(wanted, str(row.get("language") or "en"))
