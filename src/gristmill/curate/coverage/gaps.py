"""What is not covered yet, as something to write about: uncovered facts, and chunks marked with uncovered sentences.

A marked chunk is the same chunk: it keeps its id, and whoever writes about it sees the marked sentences alone
(`core.statements.wanted_of`). In a `repeat` each round takes the samples of the rounds before, of which the first has
none. With `most` a round asks for so many sentences of a chunk, drawn anew each time: sentences that a model could not
handle side by side come in other company.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import JsonValue

from gristmill.core.records import Chunk, Fact, Record
from gristmill.core.stage import PassContext, PassResult
from gristmill.core.statements import GAPS, statements
from gristmill.curate.coverage.exercised import exercised
from gristmill.curate.coverage.stages import GapsConfig


def run(config: GapsConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """What is covered is counted, not listed as rejects: nothing is wrong with it."""
    found = exercised(config, records, ctx)
    left = [unit for unit in found.every() if not found.covered(unit)]
    open_places = {(unit.path, unit.start, unit.end) for unit in left if not unit.fact}
    open_facts = {unit.fact for unit in left if unit.fact}
    ctx.count(gaps=len(left))
    for record in records:
        if isinstance(record, Fact) and record.id in open_facts:
            yield record
        elif isinstance(record, Chunk) and (chunk := _marked(config, record, open_places, ctx)):
            yield chunk


def _marked(config: GapsConfig, chunk: Chunk, open_places: set[tuple[str, int, int]], ctx: PassContext) -> Chunk | None:
    """The chunk with the spans that it is asked for; None where all is covered. A sentence that two chunks share is
    asked for in the first."""
    gaps = []
    for start, end in statements(chunk):
        place = (chunk.path, chunk.start + start, chunk.start + end)
        if place in open_places:
            open_places.remove(place)
            gaps.append((start, end))
    if config.most is not None and len(gaps) > config.most:
        gaps = sorted(ctx.rng(chunk, "gaps").sample(gaps, config.most))
    spans: list[JsonValue] = [[start, end] for start, end in gaps]
    return chunk.marked(**{GAPS: spans}) if spans else None
