"""Local scores as marks, and thresholds on them: cheap, before any judge is asked."""

from __future__ import annotations

from gristmill.core.errors import Reject
from gristmill.core.records import Record, Sample
from gristmill.core.stage import StepContext
from gristmill.curate.likeness import said_in
from gristmill.curate.quality.score_config import ScoreConfig
from gristmill.curate.quality.scores import scores


async def run(config: ScoreConfig, record: Sample, _ctx: StepContext) -> list[Record]:
    text = record.answer if config.of == "answer" else said_in(record)
    found = scores(text, record.language)
    for name, bounds in sorted(config.keep.items()):
        if name in found and not bounds.hold(found[name]):
            raise Reject(f"{name} out of bounds", f"{found[name]:g}: {text[:200]}")
    return [record.marked(scores={**found})]
