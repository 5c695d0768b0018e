"""The vector of what a sample says, by an embedding model, as a mark for the pass that compares them."""

from __future__ import annotations

from gristmill.core.records import Record, Sample
from gristmill.core.stage import StepContext
from gristmill.curate.duplicates.stages import EmbedConfig
from gristmill.curate.likeness import said_in
from gristmill.retrieve import embed_with, packed

MARK = "vector"


async def run(config: EmbedConfig, record: Sample, ctx: StepContext) -> list[Record]:
    (vector,) = await embed_with(ctx.model(config.model), [said_in(record)])
    return [record.marked(**{MARK: packed(vector)})]
