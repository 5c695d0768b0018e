"""English number words as numbers: "forty-two", "one hundred and twenty", "eighteen forty-two" (a year), "third"."""

# ruff: noqa: SIM905  (word lists read best as sentences)
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_SMALL = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen".split()
    )
}
_TENS = {w: 10 * v for v, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_ORDINALS = {
    word: value
    for value, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth "
        "fifteenth sixteenth seventeenth eighteenth nineteenth twentieth".split(),
        1,
    )
} | {w[:-1] + "ieth": v for w, v in _TENS.items()}


class Number(NamedTuple):
    """A number that words spell, and the index after its last word."""

    value: int
    ordinal: bool
    end: int


def read_number(words: Sequence[str], at: int) -> Number | None:
    """The longest number that starts at `words[at]`; None where no number word stands."""
    total, group, end, ordinal = 0, None, at, False
    while end < len(words) and not ordinal:
        word = words[end]
        if word == "and" and end > at and words[end - 1] in {"hundred", *_SCALES} and _starts(words, end + 1):
            end += 1
            continue
        ordinal = word in _ORDINALS
        small = _ORDINALS[word] if ordinal else _SMALL.get(word, _TENS.get(word))
        if small is not None:
            joined = _join(group, small)
            if joined is None:
                ordinal = False
                break
            group = joined
        elif word == "hundred":
            group = (1 if group is None else group) * 100
        elif word == "dozen":
            group = (1 if group is None else group) * 12
        elif word in _SCALES:
            total, group = total + (1 if group is None else group) * _SCALES[word], None
        else:
            break
        end += 1
    return Number(total + (group or 0), ordinal, end) if end > at else None


def scale_of(word: str) -> int | None:
    """What a scale word after digits multiplies by: 3 million, 2 dozen."""
    return {**_SCALES, "hundred": 100, "dozen": 12}.get(word)


def _starts(words: Sequence[str], at: int) -> bool:
    return at < len(words) and (words[at] in _SMALL or words[at] in _TENS or words[at] in _ORDINALS)


def _join(group: int | None, value: int) -> int | None:
    """`forty` + 2, `two hundred` + 17, `eighteen` + 42; None where a new number begins."""
    if group is None:
        return value
    if group >= 100 and group % 100 == 0:
        return group + value
    if group >= 20 and group % 10 == 0 and 0 < value < 10:
        return group + value
    if 10 <= group <= 21 and 10 <= value < 100:  # a year, said in two halves
        return group * 100 + value
    return None
