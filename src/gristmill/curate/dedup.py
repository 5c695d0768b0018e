"""Exact and near duplicates. rensa finds candidates; only exact Jaccard on word shingles decides.

A changed number or name, or another answer, makes another fact, however alike the rest reads: such pairs are never
merged, and never even compared, so that questions made after one template cost no more than others. Kept is the first
in input order; each is compared with what was kept before it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

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
    """What two samples are compared by: all that is said, what was answered, and what must agree besides."""

    record: Sample
    text: str  # folded
    answer: str  # folded; empty in plain text
    exact: str  # digest of form, text, answer and verdict
    bucket: str  # digest of form, verdict, numbers, names and short answer: where these differ, nothing is merged

    @classmethod
    def of(cls, sample: Sample) -> Compared:
        said, answer = _said(sample), plain(_answers(sample))
        text = plain(said)
        short = answer if len(answer.split()) <= SHORT_ANSWER else None  # must be the very same; a long one alike
        return cls(
            record=sample,
            text=text,
            answer=answer,
            exact=digest_of([sample.form, _verdict(sample), text, answer]),
            bucket=digest_of([sample.form, _verdict(sample), _numbers(said), _names(said), short]),
        )


def _said(sample: Sample) -> str:
    return sample.text or "\n".join(m.content for m in (*sample.messages, *sample.chosen) if m.role != "system")


def _answers(sample: Sample) -> str:
    return "\n".join(m.content for m in (*sample.messages, *sample.chosen) if m.role == "assistant")


def _verdict(sample: Sample) -> str | bool | None:
    """What is judged of it: a label, a rating, the answer that was not chosen. Another verdict is another sample."""
    return sample.label or sample.desirable or plain("\n".join(m.content for m in sample.rejected))


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


def _numbers(text: str) -> list[str]:
    return sorted(re.findall(r"\d+", text))


def _names(text: str) -> list[str]:
    """Capitals that don't open a sentence, each once."""
    found = WORD.finditer(text)
    names = {
        fold(hit[0])
        for hit in found
        if hit[0][0].isupper() and _INSIDE.search(text[max(0, hit.start() - 8) : hit.start()])
    }
    return sorted(names)


@dataclass(frozen=True)
class Original:
    """What a dropped sample repeats, and how alike the two are."""

    record: Sample
    likeness: float


@dataclass(frozen=True)
class _Kept:
    """A sample with its shingles, made once for all that it is compared with."""

    record: Sample
    text: set[str]
    answer: set[str]

    def original(self, before: Iterable[_Kept], threshold: float) -> Original | None:
        """The first of these that it duplicates."""
        for other in before:
            likeness = jaccard(self.text, other.text)
            if likeness >= threshold and jaccard(self.answer, other.answer) >= threshold:
                return Original(other.record, likeness)
        return None


def _originals(bucket: list[Compared], config: DedupConfig) -> dict[str, Original]:
    """What each near-duplicate of a bucket repeats, by its `exact`."""
    index = RMinHashLSH(config.threshold, PERMUTATIONS, bands_for(config.threshold))
    sets = (shingles(item.text, config.shingle) for item in bucket)
    matrix = RMinHash.digest_matrix_from_token_sets(sets, PERMUTATIONS, SEED)
    # Only those that share a band with another are worth objects of their own.
    suspects = [at for at, shared in enumerate(index.query_duplicate_flags_matrix_one_shot(matrix)) if shared]
    kept: dict[int, _Kept] = {}
    found: dict[str, Original] = {}
    for at in suspects:
        item = bucket[at]
        mine = _Kept(item.record, shingles(item.text, config.shingle), shingles(item.answer, config.shingle))
        (sketch,) = RMinHash.from_token_sets([mine.text], PERMUTATIONS, SEED)
        if original := mine.original((kept[key] for key in sorted(index.query(sketch))), config.threshold):
            found[item.exact] = original
        else:
            index.insert(at, sketch)
            kept[at] = mine
    return found


def run(config: DedupConfig, records: Iterable[Record], _ctx: PassContext) -> PassResult:
    compared = [Compared.of(record) for record in samples(records)]
    firsts: dict[str, Compared] = {}
    buckets: defaultdict[str, list[Compared]] = defaultdict(list)
    for item in compared:
        if firsts.setdefault(item.exact, item) is item:
            buckets[item.bucket].append(item)
    alike: dict[str, Original] = {}
    if config.near:
        for bucket in buckets.values():
            if len(bucket) > 1:
                alike |= _originals(bucket, config)
    for item in compared:
        first = firsts[item.exact]
        if first is not item:
            yield Dropped(item.record, "exact duplicate", f"of {first.record.id}")
        elif found := alike.get(item.exact):
            yield Dropped(item.record, "near-duplicate", f"of {found.record.id}, Jaccard {found.likeness:.2f}")
        else:
            yield item.record
