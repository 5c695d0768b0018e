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
    pool = [record for record in records if isinstance(record, Chunk)]
    chosen = nsmallest(config.chunks, pool, key=lambda chunk: (digest_of([ctx.seed, chunk.text]), chunk.id))
    kept = {chunk.id for chunk in chosen}
    ctx.count(left_out=len(pool) - len(chosen))
    yield from (chunk for chunk in pool if chunk.id in kept)
