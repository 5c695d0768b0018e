"""Exact and near duplicates. rensa finds candidates; only exact Jaccard on word shingles decides.

A changed number or name, or another answer, makes another fact, however alike the rest reads: such pairs are never
merged. Kept is the first in input order; each is compared with what was kept before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rensa import RMinHash, RMinHashLSH

from gristmill.core.records import Record, Sample, digest_of
from gristmill.core.stage import Dropped, PassContext, PassResult, samples
from gristmill.curate.stages import DedupConfig
from gristmill.curate.words import WORD, fold, plain

PERMUTATIONS, SEED = 128, 42
RECALL = 0.999  # of pairs that lie exactly at the threshold; more alike ones are found almost surely
SHORT_ANSWER = 12  # words
_INSIDE = re.compile(r"[^\s.!?:]\s*\Z")


@dataclass(frozen=True)
class Compared:
    """What two samples are compared by: all that is said, and what must agree besides."""

    record: Sample
    text: str  # folded
    exact: str  # digest of form, text and answer

    @classmethod
    def of(cls, sample: Sample) -> Compared:
        text = plain(_said(sample))
        return cls(sample, text, digest_of([sample.form, text, plain(_answers(sample)) if sample.messages else ""]))


def _said(sample: Sample) -> str:
    return sample.text or "\n".join(m.content for m in sample.messages if m.role != "system")


def _answers(sample: Sample) -> str:
    return "\n".join(m.content for m in sample.messages if m.role == "assistant")


def shingles(text: str, size: int) -> set[str]:
    """Every run of `size` words of a folded text; a shorter text is one shingle."""
    tokens = text.split(" ")
    return {" ".join(tokens[i : i + size]) for i in range(max(1, len(tokens) - size + 1))}


def jaccard(one: set[str], other: set[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def bands_for(threshold: float) -> int:
    """The fewest LSH bands that still find a pair at the threshold with probability RECALL."""
    rows = [r for r in (16, 8, 4, 2, 1) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= RECALL]
    return PERMUTATIONS // (rows[0] if rows else 1)


def _particulars(text: str) -> tuple[list[str], set[str]]:
    """The numbers of a text, and its names: capitals that don't open a sentence."""
    found = WORD.finditer(text)
    names = {
        fold(hit[0])
        for hit in found
        if hit[0][0].isupper() and _INSIDE.search(text[max(0, hit.start() - 8) : hit.start()])
    }
    return sorted(re.findall(r"\d+", text)), names


def _same_meaning(one: Sample, other: Sample, config: DedupConfig) -> bool:
    """The same form, numbers, names and answer. An answer of a few words must be the very same; a long one alike."""
    if one.form != other.form or _particulars(_said(one)) != _particulars(_said(other)):
        return False
    mine, yours = plain(_answers(one)), plain(_answers(other))
    if mine == yours or min(len(mine.split()), len(yours.split())) <= SHORT_ANSWER:
        return mine == yours
    return jaccard(shingles(mine, config.shingle), shingles(yours, config.shingle)) >= config.threshold


@dataclass(frozen=True)
class Original:
    """What a dropped sample repeats, and how alike the two are."""

    record: Sample
    likeness: float


class _Near:
    """An index of kept samples. Only those that share a band with any other sample are worth an object of their own."""

    def __init__(self, compared: list[Compared], config: DedupConfig) -> None:
        self.config = config
        self.index = RMinHashLSH(config.threshold, PERMUTATIONS, bands_for(config.threshold))
        self.kept: dict[int, Compared] = {}
        self.sketches = self._suspects(compared)

    def _suspects(self, compared: list[Compared]) -> dict[int, Any]:
        """Sketches of those that share a band with another, by position."""
        sets = (shingles(item.text, self.config.shingle) for item in compared)
        matrix = RMinHash.digest_matrix_from_token_sets(sets, PERMUTATIONS, SEED)
        flags = self.index.query_duplicate_flags_matrix_one_shot(matrix)
        shared = [position for position, flag in enumerate(flags) if flag]
        alike = (shingles(compared[position].text, self.config.shingle) for position in shared)
        return dict(zip(shared, RMinHash.from_token_sets(alike, PERMUTATIONS, SEED), strict=True))

    def original(self, position: int, item: Compared) -> Original | None:
        """The first kept sample that this one duplicates, with their similarity; otherwise it is kept itself."""
        if (sketch := self.sketches.get(position)) is None:
            return None
        mine = shingles(item.text, self.config.shingle)
        for key in sorted(self.index.query(sketch)):
            other = self.kept[key]
            likeness = jaccard(mine, shingles(other.text, self.config.shingle))
            if likeness >= self.config.threshold and _same_meaning(item.record, other.record, self.config):
                return Original(other.record, likeness)
        self.index.insert(position, sketch)
        self.kept[position] = item
        return None


def run(config: DedupConfig, records: Iterable[Record], _ctx: PassContext) -> PassResult:
    compared = [Compared.of(record) for record in samples(records)]
    firsts: dict[str, Sample] = {}
    for item in compared:
        firsts.setdefault(item.exact, item.record)
    fresh = [item for item in compared if firsts[item.exact] is item.record]
    near = _Near(fresh, config) if config.near and fresh else None
    position = 0
    for item in compared:
        first = firsts[item.exact]
        if first is not item.record:
            yield Dropped(item.record, "exact duplicate", f"of {first.id}")
            continue
        found = near.original(position, item) if near else None
        position += 1
        if found:
            yield Dropped(item.record, "near-duplicate", f"of {found.record.id}, Jaccard {found.likeness:.2f}")
        else:
            yield item.record
