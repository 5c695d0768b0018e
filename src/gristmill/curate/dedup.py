"""Exact and near duplicates; the first in input order stays. How two samples are compared: `likeness`."""

from __future__ import annotations

from collections.abc import Iterable

from gristmill.core.records import Record
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.curate.originals import Samples, originals
from gristmill.curate.stages import DedupConfig


def run(config: DedupConfig, records: Iterable[Record], _ctx: PassContext) -> PassResult:
    found = originals(Samples(records), threshold=config.threshold, size=config.shingle, near=config.near)
    for sample, original in found:
        if original is None:
            yield sample
        elif original.exact:
            yield Dropped(sample, "exact duplicate", f"of {original.id}")
        else:
            yield Dropped(sample, "near-duplicate", f"of {original.id}, Jaccard {original.likeness:.2f}")
