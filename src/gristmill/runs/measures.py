"""What a run measured: the numbers of its checkpoints and reports by name, and the curves of its trainings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gristmill.core.events import read_events
from gristmill.core.records import Checkpoint, Report
from gristmill.runs.folder import Output, RunFolder

ARMS = "arms"
"""In a report: what is examined, each by its name. It is left out of the names of metrics."""

Curve = list[tuple[float, float]]
"""Steps and values, in order."""


def metrics_of(folder: RunFolder) -> dict[str, float]:
    """stage.name -> number: `tune.eval_loss` of a checkpoint, `exam.tuned.accuracy` of a report."""
    found: dict[str, float] = {}
    for stage, output in folder.outputs().items():
        found |= {f"{stage}.{name}": value for name, value in _said(output)}
    return found


def measured(output: Output) -> dict[str, float]:
    """The numbers of one stage by name: what it counted, and what its checkpoints and reports say."""
    counts = output.meta["counts"]
    return {"taken": counts["taken"], "given": counts["given"], **counts["more"], **dict(_said(output))}


def _said(output: Output) -> Iterator[tuple[str, float]]:
    for checkpoint in output.only(Checkpoint):
        yield from checkpoint.metrics.items()
    for report in output.only(Report):
        yield from _numbers(report.data)


def _numbers(data: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a report, and of each part of it by the part's name."""
    for name, value in data.items():
        if name == ARMS and isinstance(value, dict):
            yield from _numbers(value)
        elif isinstance(value, dict):
            yield from ((f"{name}.{inner}", float(number)) for inner, number in value.items() if _is_number(number))
        elif _is_number(value):
            yield name, float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def curves_of(folder: RunFolder, root: Path) -> dict[str, dict[str, Curve]]:
    """Stage -> name -> its curve, of every training of a run: one taken over from another run has its curves there.
    What an attempt repeated after a kill counts once."""
    curves: dict[str, dict[str, dict[float, float]]] = {}
    elsewhere: dict[str, Path] = {}
    for event in read_events(folder.path / "events.ndjson"):
        if event["event"] == "stage.reused":
            elsewhere[event["stage"]] = root / event["source"]
        elif event["event"] == "metric" and "step" in event:
            elsewhere.pop(event["stage"], None)
            of_stage = curves.setdefault(event["stage"], {})
            for name, value in event.items():
                if name not in ("step", "time") and _is_number(value):
                    of_stage.setdefault(name, {})[event["step"]] = value
    made = {stage: {name: sorted(line.items()) for name, line in lines.items()} for stage, lines in curves.items()}
    for stage, source in elsewhere.items():
        run = RunFolder(source.parents[1])
        if run.path != folder.path and (theirs := curves_of(run, root).get(stage)):
            made[stage] = theirs
    return made
