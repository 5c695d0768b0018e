"""Edits of a text by place, so that whatever points into the text can be moved with it.

An edit never reaches over a border that something points at: spans and masks are exact before and after.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from gristmill.core.records import Span
from gristmill.generate.spans import names_in
from gristmill.generate.wording import as_words

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_NUMBER = re.compile(r"\S*\d\S*")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]+`|\{\{.*?\}\}|\w+://\S+|\S+@\S+\.\w+|<[^<>\s][^<>]*>", re.DOTALL)


@dataclass(frozen=True)
class Edit:
    """`text` in place of the characters start..end."""

    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Free:
    """A text, its words that may be touched, and the borders and stretches that no edit may touch or cross."""

    text: str
    words: tuple[Span, ...]
    guarded: tuple[Span, ...]
    borders: frozenset[int]

    def open(self, start: int, end: int) -> bool:
        """Whether an edit of start..end meets nothing guarded and crosses no border."""
        met = any(start < other_end and other < end for other, other_end in self.guarded)
        return not met and not any(start < border < end for border in self.borders)

    def gap(self, one: Span, other: Span) -> bool:
        """Whether one space, and nothing else, lies between two words, and may go."""
        alone = self.text[one[1] : other[0]] == " " and not {one[1], other[0]} & self.borders
        return alone and self.open(one[1], other[0])


def free(
    text: str,
    *,
    protect: Sequence[Literal["numbers", "names", "code"]] = (),
    words: Iterable[str] = (),
    spans: Iterable[Span] = (),
    borders: Iterable[int] = (),
) -> Free:
    """What of a text may be touched: `spans` stay verbatim, and no edit crosses one of `borders`."""
    spans = tuple(spans)
    guarded = list(spans)
    if "numbers" in protect:
        guarded += (hit.span() for hit in _NUMBER.finditer(text))
    if "code" in protect:
        guarded += (hit.span() for hit in _CODE.finditer(text))
    phrases = [*words, *(names_in(_SENTENCE.findall(text)) if "names" in protect else ())]
    for phrase in phrases:
        guarded += (hit.span() for hit in re.finditer(as_words(phrase), text))
    at = frozenset({*borders, *(end for span in spans for end in span)})
    room = Free(text, (), tuple(guarded), at)
    return Free(text, tuple(hit.span() for hit in _WORD.finditer(text) if room.open(*hit.span())), room.guarded, at)


def apply(text: str, edits: Iterable[Edit]) -> str:
    """The text with some edits that don't overlap."""
    parts, last = [], 0
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        parts += [text[last : edit.start], edit.text]
        last = edit.end
    return "".join([*parts, text[last:]])


def moved(spans: Iterable[Span], edits: Sequence[Edit]) -> tuple[Span, ...]:
    """Where spans lie after edits that cross none of their borders."""
    return tuple((_at(start, edits), _at(end, edits)) for start, end in spans)


def _at(place: int, edits: Sequence[Edit]) -> int:
    return place + sum(len(edit.text) - (edit.end - edit.start) for edit in edits if edit.end <= place)
