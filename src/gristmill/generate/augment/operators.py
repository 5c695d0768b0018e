"""The ways to spoil a text a little, or to set it in other letters: each gives edits of words that are free.

The letters are those of a keyboard or of any script with upper and lower case; a word without such a letter is left.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from itertools import pairwise

from gristmill.core.records import Span
from gristmill.generate.augment.edits import Edit, Free
from gristmill.generate.augment.stages import Form, Noise

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""Of a keyboard; each row stands about half a key to the right of the one above."""

_SENTENCE_END = re.compile(r"[.!?]['\u2019\"\u201d)]*\s|\n")

Spoil = Callable[[str, random.Random], str]


def _neighbours() -> dict[str, str]:
    keys = {key: (row, column) for row, letters in enumerate(ROWS) for column, key in enumerate(letters)}
    near = {(0, -1), (0, 1), (1, -1), (1, 0), (-1, 0), (-1, 1)}
    return {
        key: "".join(other for other, (r, c) in keys.items() if (r - row, c - column) in near)
        for key, (row, column) in keys.items()
    }


NEIGHBOURS = _neighbours()


def _keyboard(word: str, rng: random.Random) -> str:
    places = [at for at, letter in enumerate(word) if letter.lower() in NEIGHBOURS]
    if not places:
        return word
    at = rng.choice(places)
    hit = rng.choice(NEIGHBOURS[word[at].lower()])
    return word[:at] + (hit.upper() if word[at].isupper() else hit) + word[at + 1 :]


def _swap(word: str, rng: random.Random) -> str:
    places = [at for at, (one, other) in enumerate(pairwise(word)) if one.lower() != other.lower()]
    if len(word) < 3 or not places:
        return word
    at = rng.choice(places)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def _drop(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word))
    return word[:at] + word[at + 1 :] if len(word) > 2 else word


def _double(word: str, rng: random.Random) -> str:
    at = rng.randrange(len(word))
    return word[: at + 1] + word[at:]


def _random_case(word: str, rng: random.Random) -> str:
    return "".join(rng.choice((letter.lower(), letter.upper())) for letter in word)


_LETTERS: dict[str, Spoil] = {
    "keyboard": _keyboard,
    "swap": _swap,
    "drop": _drop,
    "double": _double,
    "random_case": _random_case,
}
_TYPOS = ("keyboard", "swap", "drop", "double", "spaces")


def spoil(room: Free, way: Noise, *, share: float, rng: random.Random) -> list[Edit]:
    """Edits of a share of the free words, one at least; none where no word can be touched in this way."""
    wanted = max(1, round(share * len(room.words)))
    order = rng.sample(range(len(room.words)), len(room.words))
    edits: list[Edit] = []
    touched = bytearray(len(room.text))
    for at in order:
        if len(edits) == wanted:
            break
        made = _one(room, at, rng.choice(_TYPOS) if way == "typos" else way, rng)
        if made is None or any(touched[made.start : made.end]):
            continue
        if room.text[made.start : made.end] != made.text:
            edits.append(made)
            touched[made.start : made.end] = bytes([1]) * (made.end - made.start)
    return edits


def _one(room: Free, at: int, way: str, rng: random.Random) -> Edit | None:
    start, end = room.words[at]
    word = room.text[start:end]
    if way in _LETTERS:
        return Edit(start, end, _LETTERS[way](word, rng))
    following = room.words[at + 1] if at + 1 < len(room.words) else None
    beside = following if following and room.gap((start, end), following) else None
    if way == "spaces":
        return _space(room, (start, end), beside, rng)
    if way == "word_repeat":
        return Edit(start, end, f"{word} {word}")
    if beside is None:
        return None
    if way == "word_drop":
        return Edit(start, beside[0], "")
    return Edit(start, beside[1], f"{room.text[slice(*beside)]} {word}")


def _space(room: Free, word: Span, beside: Span | None, rng: random.Random) -> Edit | None:
    """Every second space is missing; else it slips by one letter, or comes once too often."""
    text = room.text[slice(*word)]
    missing, slipped = rng.random() < 1 / 2, rng.random() < 1 / 2
    if beside and missing:
        return Edit(word[1], beside[0], "")
    if beside and slipped and len(text) > 1:
        return Edit(word[0], beside[1], f"{text[:-1]} {text[-1]}{room.text[slice(*beside)]}")
    if len(text) < 2:
        return None
    cut = rng.randrange(1, len(text))
    return Edit(*word, f"{text[:cut]} {text[cut:]}")


def recast(room: Free, form: Form) -> list[Edit]:
    """Edits that set all free words in other letters, or join them."""
    edits = [*_recased(room, form)]
    if form in _JOINED:
        edits += (Edit(one[1], other[0], _JOINED[form]) for one, other in pairwise(room.words) if room.gap(one, other))
    return [edit for edit in edits if room.text[edit.start : edit.end] != edit.text]


_JOINED = {"snake": "_", "kebab": "-", "camel": "", "pascal": ""}
_CASES: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "lower": str.lower,
    "snake": str.lower,
    "kebab": str.lower,
    "title": str.capitalize,
    "pascal": str.capitalize,
    "inverted": str.swapcase,
    "alternating": lambda word: "".join(c.upper() if at % 2 else c.lower() for at, c in enumerate(word)),
}


def _recased(room: Free, form: Form) -> Iterator[Edit]:
    for at, (start, end) in enumerate(room.words):
        word = room.text[start:end]
        if form == "sentence":
            made = word.capitalize() if _opens(room.text, start) else word.lower()
        elif form == "camel":
            joined = at > 0 and room.gap(room.words[at - 1], (start, end))
            made = word.capitalize() if joined else word.lower()
        else:
            made = _CASES[form](word)
        yield Edit(start, end, made)


def _opens(text: str, start: int) -> bool:
    """Whether a sentence begins here."""
    end = start
    while start and not text[start - 1].isalnum():
        start -= 1
    return start == 0 or _SENTENCE_END.search(text, start, end) is not None
