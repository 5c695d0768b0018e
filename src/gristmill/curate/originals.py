"""Which samples repeat another. Kept is the first in order; each is compared with what was kept before it.

No sample is held. Of each are kept two digests and a sketch, 0.8 KB in all, and of those that may have a double their
shingles; so the samples are read twice, first for the sketches, then for the verdicts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gristmill.core.records import Record, Sample
from gristmill.curate.hashed import Hashes
from gristmill.curate.likeness import PERMUTATIONS, Compared, bands_for, jaccard, said_in, sketches

BATCH, CHARACTERS = 128, 1 << 18
"""Samples looked at together: at most so many, and no more once they hold so many characters."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
SLACK = 0.2
"""How far a sketch's estimate may lie below the threshold and still be looked at: five standard deviations."""


@dataclass(frozen=True)
class Original:
    """What a sample repeats, and how alike the two are: 1 for the very same."""

    id: str
    likeness: float
    exact: bool = False


@dataclass(frozen=True)
class Samples:
    """The samples among the records of a pass, read again each time."""

    records: Iterable[Record]

    def __iter__(self) -> Iterator[Sample]:
        return (record for record in self.records if isinstance(record, Sample))


def batches(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    batch, size = list[Sample](), 0
    for sample in samples:
        batch.append(sample)
        size += len(said_in(sample))
        if len(batch) >= BATCH or size >= CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class Sketched:
    """Samples in order, as they are compared; without sketches where only exact duplicates are looked for."""

    exact: Hashes
    bucket: Hashes
    rows: NDArray[np.uint32]  # [samples, PERMUTATIONS], or [samples, 0]

    @classmethod
    def of(cls, samples: Iterable[Sample], size: int, *, near: bool = True) -> Sketched:
        parts = []
        for batch in batches(samples):
            compared = Compared.of(batch)
            rows = sketches(compared.text, size) if near else np.empty((len(batch), 0), np.uint32)
            parts.append(cls(compared.exact, compared.bucket, rows))
        return cls.joined(parts, near=near)

    @classmethod
    def joined(cls, parts: list[Sketched], *, near: bool) -> Sketched:
        width = PERMUTATIONS if near else 0
        return cls(
            np.concatenate([np.empty(0, np.uint64), *(part.exact for part in parts)]),
            np.concatenate([np.empty(0, np.uint64), *(part.bucket for part in parts)]),
            np.concatenate([np.empty((0, width), np.uint32), *(part.rows for part in parts)]),
        )

    def __len__(self) -> int:
        return len(self.exact)

    def firsts(self) -> NDArray[np.int32]:
        """For each the place of the first that says the very same."""
        _, first, inverse = np.unique(self.exact, return_index=True, return_inverse=True)
        return first[inverse].astype(np.int32)

    def groups(self, threshold: float) -> tuple[NDArray[np.int32], int]:
        """By sample and band the number of the group that shares it, -1 where nobody does; and how many groups."""
        bands = bands_for(threshold)
        width, many = PERMUTATIONS // bands, 0
        found = np.full((len(self), bands), -1, np.int32)
        each = np.flatnonzero(self.firsts() == np.arange(len(self)))
        for band in range(bands if self.rows.size else 0):
            keys = self.bucket[each]
            for column in self.rows[each, band * width : (band + 1) * width].T:
                keys = keys * _ODD + column
            _, inverse, sizes = np.unique(keys, return_inverse=True, return_counts=True)
            number = np.cumsum(sizes > 1, dtype=np.int32) - 1 + many
            shared = sizes[inverse] > 1
            found[each[shared], band] = number[inverse[shared]]
            many += int((sizes > 1).sum())
        return found, many


@dataclass(frozen=True)
class Given:
    """What is there already: sketched before, and read again only where it matters."""

    sketched: Sketched
    samples: Iterable[Sample]


@dataclass
class _Kept:
    """Kept samples that may have a double: their shingles, and by group the last that was kept, each with the one
    before it."""

    sketched: Sketched
    groups: NDArray[np.int32]
    many: int
    threshold: float
    held: dict[int, tuple[str, Hashes, Hashes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.last = array("i", [-1]) * self.many
        self.before = array("i", [-1]) * self.groups.size

    def original(self, at: int, name: str, text: Hashes, answer: Hashes, *, given: bool) -> Original | None:
        """The first of those kept before that this one repeats; kept itself if there is none, or if it is `given`."""
        for other in () if given else self._candidates(at):
            its_name, its_text, its_answer = self.held[other]
            likeness = jaccard(text, its_text)
            if likeness >= self.threshold and jaccard(answer, its_answer) >= self.threshold:
                return Original(its_name, likeness)
        self.held[at] = (name, text, answer)
        bands = self.groups.shape[1]
        for band, group in enumerate(self.groups[at].tolist()):
            if group >= 0:
                self.before[at * bands + band] = self.last[group]
                self.last[group] = at
        return None

    def _candidates(self, at: int) -> list[int]:
        """Those kept that share a band, in order, as far as the sketches let hope."""
        found: set[int] = set()
        bands = self.groups.shape[1]
        for band, group in enumerate(self.groups[at].tolist()):
            other = self.last[group] if group >= 0 else -1
            while other >= 0:
                found.add(other)
                other = self.before[other * bands + band]
        others = np.array(sorted(found), np.int64)
        alike = (self.sketched.rows[others] == self.sketched.rows[at]).mean(axis=1)
        likely: list[int] = others[alike >= self.threshold - SLACK].tolist()
        return likely


def originals(
    samples: Iterable[Sample],
    *,
    threshold: float,
    size: int,
    near: bool = True,
    given: Given | None = None,
) -> Iterator[tuple[Sample, Original | None]]:
    """Each sample and what it repeats, of those before it and of those `given`. `samples` are iterated twice."""
    mine = Sketched.of(samples, size, near=near)
    sketched = Sketched.joined([given.sketched, mine], near=near) if given else mine
    before = len(sketched) - len(mine)
    firsts = sketched.firsts()
    groups, many = sketched.groups(threshold)
    suspect: NDArray[np.bool_] = np.any(groups >= 0, axis=1)
    repeated = np.zeros(len(sketched), np.bool_)
    repeated[firsts[firsts != np.arange(len(firsts))]] = True
    kept, names = _Kept(sketched, groups, many, threshold), dict[int, str]()
    reread = chain(given.samples, samples) if given and (suspect[:before] | repeated[:before]).any() else samples
    at = 0 if reread is not samples else before
    for batch in batches(reread):
        places = range(at, at + len(batch))
        at += len(batch)
        doubtful = [place for place in places if suspect[place]]
        shingled = dict(zip(doubtful, _shingles([batch[d - places[0]] for d in doubtful], size), strict=True))
        for place, sample in zip(places, batch, strict=True):
            first, found = int(firsts[place]), None
            if first != place:
                found = Original(names[first], 1.0, exact=True)
            elif place in shingled:
                found = kept.original(place, sample.id, *shingled[place], given=place < before)
            if repeated[place]:
                names[place] = sample.id
            if place >= before:
                yield sample, found


def _shingles(samples: list[Sample], size: int) -> Iterator[tuple[Hashes, Hashes]]:
    """Of each text and answer, each once, sorted."""
    if samples:
        compared = Compared.of(samples)
        texts, answers = compared.text.shingles(size), compared.answer.shingles(size)
        for row in range(len(samples)):
            yield np.unique(texts[row]), np.unique(answers[row])
