"""The coverage map: of every document which sentences and facts are exercised, by how many samples.

`covered` is what a `repeat` waits for: the share, 0 to 1, of all sentences and facts that as many samples exercise as
the recipe asks for. Each one's count is kept, so that the report can draw the documents sentence by sentence.
"""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import JsonValue

from gristmill.core.errors import InputError
from gristmill.core.records import Record, Report
from gristmill.core.stage import PassContext, PassResult
from gristmill.curate.coverage.exercised import Exercised, Unit, exercised
from gristmill.curate.coverage.stages import CoverageConfig

SHOWN = 160
"""Characters of a sentence that the map tells."""


def run(config: CoverageConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    found = exercised(config, records, ctx)
    every = list(found.every())
    if not every:
        raise InputError("there is nothing to cover", "Name a stage in `needs` that gives chunks or facts.")
    if found.unquoted:
        ctx.count(**{"samples without a quote": found.unquoted})
    covered = _share(found, every)
    ctx.count(covered=covered)
    documents: dict[str, JsonValue] = {path: _document(found, units) for path, units in found.units.items()}
    yield Report(
        title="Coverage",
        data={
            "covered": covered,
            "exercised": sum(unit.samples > 0 for unit in every) / len(every),
            "units": len(every),
            "samples": found.counted,
            "least": config.samples,
            "coverage": documents,
        },
    )


def _document(found: Exercised, units: list[Unit]) -> dict[str, JsonValue]:
    facts = [unit for unit in units if unit.fact]
    return {
        "covered": _share(found, units),
        "sentences": len(units) - len(facts),
        "facts": len(facts),
        "map": [[unit.start, unit.end, unit.samples, " ".join(unit.text.split())[:SHOWN]] for unit in units],
    }


def _share(found: Exercised, units: list[Unit]) -> float:
    return sum(map(found.covered, units)) / len(units)
