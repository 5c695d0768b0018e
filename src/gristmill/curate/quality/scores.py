"""What can be said of a text without a model: one number each, by a formula that is named.

words         running words
sentence      words a sentence, the mean
lix           readability: words a sentence + 100 x share of words over six letters (Björnsson 1968); 20 is a
              children's book, 40 a newspaper, 60 a statute. For any language with spaces
repetition    share of three-word sequences that came before (Rae et al. 2021, A.1.1)
variety       share of the last hundred words that differ (moving type-token ratio, Covington and McFall 2010)
symbols       share of characters that are no letter, digit, space or common point
capitals      share of letters that are capitals
function      share of words that are function words of its language; telegrams and lists of keys have few
language      how sure the detector is (0 to 1) that it is in the language it is marked with; one that it does not
              know has no such score
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gristmill.curate.language import identifier, known_as
from gristmill.curate.words import function_words, words

_SENTENCE = re.compile(r"[.!?…。！？]+(?:\s|\Z)|\n{2,}")
_COMMON = frozenset(" \t\n.,;:!?'\"()-–—’“”")
LONG, WINDOW, GRAM = 6, 100, 3


def _sentences(text: str) -> int:
    return max(1, sum(bool(part.strip()) for part in _SENTENCE.split(text)))


def repetition(tokens: list[str]) -> float:
    grams = [tuple(tokens[at : at + GRAM]) for at in range(len(tokens) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def variety(tokens: list[str]) -> float:
    if len(tokens) <= WINDOW:
        return len(set(tokens)) / len(tokens) if tokens else 0.0
    windows = range(len(tokens) - WINDOW + 1)
    return sum(len(set(tokens[at : at + WINDOW])) for at in windows) / len(windows) / WINDOW


def _share(text: str, counts: Callable[[str], bool], among: Callable[[str], bool] = bool) -> float:
    pool = [sign for sign in text if among(sign)]
    return sum(map(counts, pool)) / len(pool) if pool else 0.0


def scores(text: str, language: str) -> dict[str, float]:
    tokens = words(text)
    known, many = function_words(language), max(1, len(tokens))
    sentence = len(tokens) / _sentences(text)
    found = {
        "words": len(tokens),
        "sentence": sentence,
        "lix": sentence + 100 * sum(len(token) > LONG for token in tokens) / many,
        "repetition": repetition(tokens),
        "variety": variety(tokens),
        "symbols": _share(text, lambda sign: not sign.isalnum() and sign not in _COMMON),
        "capitals": _share(text, str.isupper, str.isalpha),
    }
    if code := known_as(language):
        found["language"] = float(dict(identifier().rank(text))[code])
    if known:  # a language without a list has no such share
        found["function"] = sum(token in known for token in tokens) / many
    return {name: round(value, 4) for name, value in sorted(found.items())}
