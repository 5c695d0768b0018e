"""What earlier runs of the workspace hold already, exactly or nearly: as `curate.dedup`, their samples before ours.

Each run's sketches are kept among the workspace's derived files, under the digest of its samples: the index of the
workspace, made again where it is missing. Their samples are read again only where one of ours may repeat them. What is
found depends on which runs there are, so this is computed for every run, and the funnel says how many it looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gristmill.core.files import atomic
from gristmill.core.records import Record, Sample, digest_of
from gristmill.core.stage import Dropped, Earlier, PassContext, PassResult
from gristmill.curate.duplicates.stages import EarlierConfig
from gristmill.curate.likeness import LAYOUT
from gristmill.curate.originals import Given, Samples, Sketched, originals


def _sketched(held: Earlier, config: EarlierConfig, cache: Path) -> Sketched:
    """From the index; put there if it is new."""
    key = digest_of([LAYOUT, held.digest, config.shingle, config.near])
    path = cache / "sketches" / f"{key[:32]}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as kept:
            return Sketched(kept["exact"], kept["bucket"], kept["rows"])
    made = Sketched.of(Samples(held.records), config.shingle, near=config.near)
    with atomic(path) as file:
        np.savez(file, exact=made.exact, bucket=made.bucket, rows=made.rows)
    return made


@dataclass(frozen=True)
class _Held:
    """The samples of several runs, one run after the other."""

    runs: list[Earlier]

    def __iter__(self) -> Iterator[Sample]:
        for held in self.runs:
            yield from Samples(held.records)


def run(config: EarlierConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    runs = ctx.earlier(config.runs)
    sketched = Sketched.joined([_sketched(held, config, ctx.cache) for held in runs], near=config.near)
    ctx.count(**{"earlier runs": len(runs), "earlier samples": len(sketched)})
    given = Given(sketched, _Held(runs))
    ours: set[str] = set()
    found = originals(Samples(records), threshold=config.threshold, size=config.shingle, near=config.near, given=given)
    for sample, original in found:
        if original is None or original.id in ours:
            ours.add(sample.id)
            yield sample
        elif original.exact:
            yield Dropped(sample, "in an earlier run", f"exactly: {original.id}")
        else:
            yield Dropped(sample, "in an earlier run", f"nearly: {original.id}, Jaccard {original.likeness:.2f}")
