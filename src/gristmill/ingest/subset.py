"""Some of the chunks, so that a large corpus costs no more than its recipe says.

Which ones is drawn by seed and text alone: neither the order of files nor what else is read moves a chunk's rank, so a
new file brings in only chunks of its own, and an edited page changes only what it holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest

from gristmill.core.records import Chunk, Record, digest_of
from gristmill.core.stage import PassContext, PassResult
from gristmill.ingest.stages import SubsetConfig


def run(config: SubsetConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """What is left out is counted, not listed as rejects: nothing is wrong with it, and the stage before holds it."""
    ranks = ((digest_of([ctx.seed, r.text]), r.id) for r in records if isinstance(r, Chunk))
    kept = {chunk for _, chunk in nsmallest(config.chunks, ranks)}
    left_out = 0
    for record in records:
        if record.id in kept:
            yield record
        else:
            left_out += 1
    ctx.count(left_out=left_out)
