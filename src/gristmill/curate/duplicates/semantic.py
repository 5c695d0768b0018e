"""The same in other words: by the cosine of two samples' vectors, local ones or those of `curate.embed`.

A vector is blind to who, how many and not; so, as among near-duplicates, only samples are compared that agree in their
numbers, names and short answers (`likeness.Compared`). Among those every pair is: the work grows with the square of the
largest such group. No sample is held, but of each its vector in half precision, 0.5 KB for the local ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gristmill.core.errors import InputError
from gristmill.core.records import Record, Sample
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.curate.duplicates.embed import MARK
from gristmill.curate.duplicates.stages import SemanticConfig
from gristmill.curate.hashed import Hashes
from gristmill.curate.likeness import Compared, said_in
from gristmill.curate.originals import Samples, batches
from gristmill.retrieve import embed, unpacked

BLOCK = 512
"""Samples of a group that are compared with the kept ones at a time."""


@dataclass(frozen=True)
class _Meant:
    """Samples in order: their vectors, and what must agree."""

    vectors: NDArray[np.float16]
    bucket: Hashes

    @classmethod
    def of(cls, samples: Iterable[Sample]) -> _Meant:
        vectors, buckets = [], []
        for batch in batches(samples):
            vectors.append(_vectors(batch).astype(np.float16))
            buckets.append(Compared.of(batch).bucket)
        if len({each.shape[1] for each in vectors}) > 1:
            raise InputError("some samples have a vector and some have none", "Let all of them pass curate.embed.")
        if not vectors:
            return cls(np.empty((0, 1), np.float16), np.empty(0, np.uint64))
        return cls(np.concatenate(vectors), np.concatenate(buckets))

    def groups(self) -> Iterator[NDArray[np.int64]]:
        """Places of those that may be the same, each group in input order."""
        order = np.argsort(self.bucket, kind="stable")
        edges = np.flatnonzero(np.diff(self.bucket[order])) + 1
        yield from (group for group in np.split(order, edges) if len(group) > 1)

    def originals(self, threshold: float) -> dict[int, tuple[int, float]]:
        """By place of one that repeats another, the other's and their cosine. Kept is the first in order."""
        found: dict[int, tuple[int, float]] = {}
        for group in self.groups():
            kept: list[int] = []
            for start in range(0, len(group), BLOCK):
                block = group[start : start + BLOCK]
                mine = self.vectors[block].astype(np.float32)
                before = mine @ self.vectors[kept].astype(np.float32).T
                among = mine @ mine.T
                new: list[int] = []
                for row, at in enumerate(block.tolist()):
                    likeness = np.concatenate([before[row], among[row, new]])
                    best = int(np.argmax(likeness >= threshold)) if len(likeness) else 0
                    if len(likeness) and likeness[best] >= threshold:
                        other = kept[best] if best < len(kept) else int(block[new[best - len(kept)]])
                        found[at] = (other, float(likeness[best]))
                    else:
                        new.append(row)
                kept += block[new].tolist()
        return found


def _vectors(batch: Sequence[Sample]) -> NDArray[np.float32]:
    marks = [sample.marks[MARK] for sample in batch if MARK in sample.marks]
    if not marks:
        return embed([said_in(sample) for sample in batch])
    if len(marks) < len(batch):
        raise InputError("some samples have a vector and some have none", "Let all of them pass curate.embed.")
    return unpacked([str(mark) for mark in marks])


def _bare(sample: Sample) -> Sample:
    return sample.model_copy(update={"marks": {name: value for name, value in sample.marks.items() if name != MARK}})


def run(config: SemanticConfig, records: Iterable[Record], _ctx: PassContext) -> PassResult:
    samples = Samples(records)
    found = _Meant.of(samples).originals(config.threshold)
    wanted, names = {other for other, _ in found.values()}, dict[int, str]()
    for at, sample in enumerate(samples):
        if at in wanted:
            names[at] = sample.id
        if at in found:
            other, likeness = found[at]
            yield Dropped(_bare(sample), "says the same", f"as {names[other]}, cosine {likeness:.2f}")
        else:
            yield _bare(sample)
