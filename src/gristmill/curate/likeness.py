"""How alike samples are, word by word: what two of them are compared by, and sketches that find candidates.

A changed number, name or sign (-5, C++, a < b), or another answer, makes another fact, however alike the rest reads:
such pairs are never merged, and never even compared, so that questions after one template cost no more than others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from gristmill.core.records import Sample
from gristmill.curate.hashed import Hashes, Ragged, read, scrambled
from gristmill.curate.words import plain

PERMUTATIONS, SEED = 128, 42
RECALL = 0.999  # of pairs that lie exactly at the threshold; more alike ones are found almost surely
SHORT_ANSWER = 12  # words
LAYOUT = 3  # of sketches and digests, where they are kept for another run
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Compared:
    """What some samples are compared by: all that is said, what was answered, and what must agree besides."""

    text: Ragged  # words
    answer: Ragged  # words; none in plain text and where it is short: then it stands in the bucket
    exact: Hashes  # of form, verdict, signs, text and answer
    bucket: Hashes  # of form, verdict, numbers, names, signs and short answer: where these differ, nothing is merged

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Compared:
        said, answers = (
            read([said_in(sample) for sample in samples]),
            read([_answers(sample) for sample in samples]).words,
        )
        judged = read([f"{sample.form} {_verdict(sample)}" for sample in samples]).words.whole()
        answered = answers.whole()
        short = answers.lengths() <= SHORT_ANSWER  # must be the very same; a long one alike
        long = np.repeat(~short, answers.lengths())
        ends = np.concatenate([[0], np.cumsum(np.where(short, 0, answers.lengths()))])
        exact = _together(judged, said.signs, said.words.whole(), answered)
        bucket = _together(judged, said.numbers, said.names, said.signs, np.where(short, answered, np.uint64(1)))
        return cls(said.words, Ragged(answers.flat[long], ends), exact, bucket)


def _together(*parts: Hashes) -> Hashes:
    made = np.zeros_like(parts[0])
    for part in parts:
        made = scrambled(made * _ODD + part)
    return made


def said_in(sample: Sample) -> str:
    """All that a sample teaches or asks; what is told to the system and what was rejected stand outside."""
    return sample.text or "\n".join(m.content for m in (*sample.messages, *sample.chosen) if m.role != "system")


def _answers(sample: Sample) -> str:
    return "\n".join(m.content for m in (*sample.messages, *sample.chosen) if m.role == "assistant")


def _verdict(sample: Sample) -> str | bool | None:
    """What is judged of it: a label and what it is about, a rating, the answer that was not chosen. Another verdict is
    another sample."""
    label = " ".join((sample.label, *(sample.text[start:end] for start, end in sample.spans)))
    return label or sample.desirable or plain("\n".join(m.content for m in sample.rejected))


def jaccard(one: Hashes, other: Hashes) -> float:
    """Of two sets, each sorted and without repetition."""
    at = np.searchsorted(one, other)
    shared = int((one[np.minimum(at, len(one) - 1)] == other).sum())
    return shared / (len(one) + len(other) - shared)


def sketches(texts: Ragged, size: int) -> NDArray[np.uint32]:
    """MinHash signatures of the texts' shingles, a row each (Broder 1997, by rensa)."""
    shingles = texts.shingles(size)
    ends = shingles.ends.astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(shingles.flat, ends, PERMUTATIONS, SEED)
    return np.array(matrix.to_rows(), np.uint32)


def bands_for(threshold: float) -> int:
    """The fewest LSH bands that still find a pair at the threshold with probability RECALL."""
    rows = [r for r in (16, 8, 4, 2, 1) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= RECALL]
    return PERMUTATIONS // (rows[0] if rows else 1)
