"""How alike samples are, word by word: what two of them are compared by, and sketches that find candidates.

A changed number or name, or another answer, makes another fact, however alike the rest reads: such pairs are never
merged, and never even compared, so that questions made after one template cost no more than others.

A shingle is a run of words, held as a 64-bit hash: of 10,000 shingles two are the same by chance once in 3.7e11 times.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from gristmill.core.records import Sample, canonical
from gristmill.curate.words import fold, plain

PERMUTATIONS, SEED = 128, 42
RECALL = 0.999  # of pairs that lie exactly at the threshold; more alike ones are found almost surely
SHORT_ANSWER = 12  # words
Hashes = NDArray[np.uint64]

_TOLD = re.compile(r"[A-Z0-9]\w*")  # a number, or a word with a capital: in ASCII
_TOLD_ANY = re.compile(r"[^\W_a-z]\w*")  # elsewhere every word that may have one
_DIGITS = re.compile(r"\d+")
_KNOWN_WORDS = 1 << 18
_ODD = 0x9E3779B97F4A7C15


def key(value: Any) -> int:
    """64 bits that stand for any plain value."""
    return int.from_bytes(blake2b(canonical(value), digest_size=8).digest())


@dataclass(frozen=True, slots=True)
class Compared:
    """What two samples are compared by: all that is said, what was answered, and what must agree besides."""

    text: str  # folded
    answer: str  # folded; empty in plain text and where it is short: then it stands in the bucket
    exact: int  # of form, text, answer and verdict
    bucket: int  # of form, verdict, numbers, names and short answer: where these differ, nothing is merged

    @classmethod
    def of(cls, sample: Sample) -> Compared:
        said, answer = _said(sample), plain(_answers(sample))
        text, verdict = plain(said), _verdict(sample)
        short = answer if len(answer.split()) <= SHORT_ANSWER else None  # must be the very same; a long one alike
        exact = key([sample.form, verdict, text, answer])
        bucket = key([sample.form, verdict, *told(said), short])
        return cls(text, answer if short is None else "", exact, bucket)


def _said(sample: Sample) -> str:
    return sample.text or "\n".join(m.content for m in (*sample.messages, *sample.chosen) if m.role != "system")


def _answers(sample: Sample) -> str:
    return "\n".join(m.content for m in (*sample.messages, *sample.chosen) if m.role == "assistant")


def _verdict(sample: Sample) -> str | bool | None:
    """What is judged of it: a label, a rating, the answer that was not chosen. Another verdict is another sample."""
    return sample.label or sample.desirable or plain("\n".join(m.content for m in sample.rejected))


def told(text: str) -> tuple[list[str], list[str]]:
    """The numbers of a text, and the names: capitals that don't open a sentence, each once. Both sorted."""
    text = " ".join(text.split())
    numbers, names = [], set()
    for hit in (_TOLD if text.isascii() else _TOLD_ANY).finditer(text):
        word, at = hit[0], hit.start()
        if not word.isalpha():
            numbers += _DIGITS.findall(word)
        if word[0].isupper() and not _opens(text, at):
            names.add(fold(word))
    return sorted(numbers), sorted(names)


def _opens(text: str, at: int) -> bool:
    """Whether the word there opens a sentence (or is the rest of another word)."""
    before = text[at - 1] if at else "."
    if before == " ":
        before = text[at - 2]
    elif before.isalnum() or before == "_":
        return True
    return before in ".!?:"


class _WordHashes(dict[str, int]):
    """64 bits of each word, computed once. A number of its own would not do: sketches of other runs must agree."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _KNOWN_WORDS:
            self.clear()
        made = self[word] = int.from_bytes(blake2b(word.encode(), digest_size=8).digest())
        return made


_HASHES = _WordHashes()


def _shingled(texts: Sequence[str], size: int) -> tuple[Hashes, Hashes]:
    """The shingles of all texts one after the other, in order, and where each text's begin and end.

    A text's words are the coefficients of a polynomial in an odd number, modulo 2**64. Shorter ones are filled up.
    """
    numbers: list[int] = []
    ends = np.zeros(len(texts) + 1, np.int64)
    for at, text in enumerate(texts, 1):
        words = text.split(" ")
        numbers += map(_HASHES.__getitem__, words)
        numbers += [0] * (size - len(words))
        ends[at] = len(numbers)
    hashes = np.array(numbers, np.uint64)
    many = len(hashes) - size + 1
    made = np.zeros(many, np.uint64)
    for place in range(size):
        made += hashes[place : place + many] * np.uint64(pow(_ODD, place + 1, 1 << 64))
    whole = np.ones(len(hashes), np.bool_)  # a shingle ends where its text does
    for place in range(1, size):
        whole[ends[1:] - place] = False
    return made[whole[:many]], (ends - np.arange(len(ends)) * (size - 1)).astype(np.uint64)


def shingles(text: str, size: int) -> Hashes:
    """Every run of `size` words of a folded text, each once, sorted; a shorter text is one shingle."""
    return np.unique(_shingled([text], size)[0])


def jaccard(one: Hashes, other: Hashes) -> float:
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


def sketches(texts: Sequence[str], size: int) -> NDArray[np.uint32]:
    """MinHash signatures of folded texts, a row each (Broder 1997, by rensa)."""
    flat, ends = _shingled(texts, size)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(flat, ends, PERMUTATIONS, SEED)
    return np.array(matrix.to_rows(), np.uint32)


def bands_for(threshold: float) -> int:
    """The fewest LSH bands that still find a pair at the threshold with probability RECALL."""
    rows = [r for r in (16, 8, 4, 2, 1) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= RECALL]
    return PERMUTATIONS // (rows[0] if rows else 1)
