"""Edits of a text by place, so that whatever points into the text can be moved with it.

An edit never reaches over a border that something points at: spans and masks are exact before and after.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

from gristmill.core.records import Span
from gristmill.generate.spans import names_in
from gristmill.generate.wording import places_of

_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*")
_WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
_SOLID = re.compile(r"\S+")
_DIGIT = re.compile(r"\d")
_CODE = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|\{\{.*?\}\}|(?<!\w)\w+://\S+"
    r"|\S{1,254}@\S{1,254}\.\w+"  # RFC 5321's bound: without one a long word is read again from each letter
    r"|<[^<>\s][^<>]*>",
    re.DOTALL,
)


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

    @cached_property
    def _reach(self) -> tuple[list[int], list[int], list[int]]:
        """Where guarded stretches start, in order, how far those up to each reach, and the borders in order."""
        guarded = sorted(self.guarded)
        return [start for start, _ in guarded], list(accumulate((end for _, end in guarded), max)), sorted(self.borders)

    def open(self, start: int, end: int) -> bool:
        """Whether an edit of start..end meets nothing guarded and crosses no border."""
        starts, reach, borders = self._reach
        before, border = bisect_left(starts, end), bisect_right(borders, start)
        return not (before and start < reach[before - 1]) and not (border < len(borders) and borders[border] < end)

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
        guarded += (hit.span() for hit in _SOLID.finditer(text) if _DIGIT.search(hit[0]))
    if "code" in protect:
        guarded += (hit.span() for hit in _CODE.finditer(text))
    phrases = [*words, *(names_in(_SENTENCE.findall(text)) if "names" in protect else ())]
    guarded += places_of(text, phrases)
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
    done = sorted(edits, key=lambda edit: edit.end)
    ends = [edit.end for edit in done]
    grown = list(accumulate((len(edit.text) - (edit.end - edit.start) for edit in done), initial=0))

    def at(place: int) -> int:
        return place + grown[bisect_right(ends, place)]

    return tuple((at(start), at(end)) for start, end in spans)
