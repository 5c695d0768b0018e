"""Exact and near duplicates; the first in input order stays. How two samples are compared: `likeness`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gristmill.core.records import Record, Sample
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.curate.originals import originals
from gristmill.curate.stages import DedupConfig


@dataclass(frozen=True)
class _Samples:
    """The samples among some records, read again each time."""

    records: Iterable[Record]

    def __iter__(self) -> Iterator[Sample]:
        return (record for record in self.records if isinstance(record, Sample))


def run(config: DedupConfig, records: Iterable[Record], _ctx: PassContext) -> PassResult:
    found = originals(_Samples(records), threshold=config.threshold, size=config.shingle, near=config.near)
    for sample, original in found:
        if original is None:
            yield sample
        elif original.exact:
            yield Dropped(sample, "exact duplicate", f"of {original.id}")
        else:
            yield Dropped(sample, "near-duplicate", f"of {original.id}, Jaccard {original.likeness:.2f}")
