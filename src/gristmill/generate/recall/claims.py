"""A statement made wrong on purpose, by code: one number in it is another. So it is certain what is false, and what the
answer must put right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

_NUMBER = re.compile(r"(?<![\w.,:/-])\d{1,9}(?![\w/:]|[.,-]\d)")


@dataclass(frozen=True)
class Claim:
    text: str  # the sentence with the wrong number
    wrong: str
    right: str


def numbered(text: str) -> bool:
    """Whether a sentence has a number that can be changed."""
    return _NUMBER.search(text) is not None


def falsified(sentence: str, *, known: str, rng: Random) -> Claim:
    """Another number of as many digits, which stands nowhere in `known`; ValueError where the sentence has none."""
    found = list(_NUMBER.finditer(sentence))
    if not found:
        raise ValueError("no number to change")
    hit = rng.choice(found)
    taken = {int(each) for each in re.findall(r"\d+", known)} | {int(hit[0])}
    low, high = (2, 9) if len(hit[0]) == 1 else (10 ** (len(hit[0]) - 1), 10 ** len(hit[0]) - 1)
    near = [n for n in range(int(hit[0]) - 60, int(hit[0]) + 60) if low <= n <= high and n not in taken]
    if not near:
        raise ValueError("every number near it is taken")
    wrong = str(rng.choice(near))
    return Claim(sentence[: hit.start()] + wrong + sentence[hit.end() :], wrong, hit[0])


def says(text: str, number: str) -> bool:
    """Whether a number stands in a text, by itself; a comma or point between thousands aside."""
    bare = re.sub(r"(?<=\d)[,.\u00a0\u202f ](?=\d{3}\b)", "", text)
    return re.search(rf"(?<!\d){re.escape(number)}(?!\d)", bare) is not None
