"""What teaches best: `bench/teaching.yaml`'s ways of writing, each with three seeds, compared question by question.

The unit of the bootstrap is the exam's question: a way's score on one is the share of its seeds that got it right; a
draw takes as many questions as there are, with replacement, the same ones for both ways of a pair (Efron & Tibshirani
1993, ch. 8). WRITER is a GGUF file of the writing model; WORKSPACE is where runs are kept and found again; further
arguments of `gristmill sweep` stand in SETS.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from bench.command import gristmill
from gristmill.core.records import Report, Sample
from gristmill.runs.folder import RunFolder

SEED = "stages.tune.seed"
DRAWS = 10_000

Scores = dict[str, dict[int, np.ndarray]]
"""Way -> seed -> 1.0 or 0.0 of each question, in the exam's order."""


def main() -> None:
    recipe = Path(__file__).with_name("teaching.yaml")
    print("\n".join(measured(recipe, key="stages.grounded.needs", least="passages")))


def measured(recipe: Path, *, key: str, least: str) -> list[str]:
    """A table of the values of `key` that the recipe sweeps over; `least`: the one that all are set beside."""
    with tempfile.TemporaryDirectory() as passing:
        workspace = os.environ.get("WORKSPACE", passing)
        writer = {"provider": "local", "model": str(Path(os.environ["WRITER"]).resolve()), "context": 4096}
        sets = ["--set", f"models.writer={json.dumps(writer)}", *shlex.split(os.environ.get("SETS", ""))]
        outcome = json.loads(gristmill("sweep", str(recipe), "--json", *sets, workspace=workspace).out)
        scores: Scores = defaultdict(dict)
        learned: dict[str, int] = {}
        for trial in outcome["trials"]:
            folder = RunFolder(Path(workspace, "runs", trial["run"]))
            value = trial["values"][key]
            way = " + ".join(value) if isinstance(value, list) else str(value)
            scores[way][trial["values"][SEED]] = _right(folder)
            learned[way] = sum(1 for _ in folder.outputs()["clean"].only(Sample))
    return table(scores, learned, least)


def _right(folder: RunFolder) -> np.ndarray:
    (report,) = folder.outputs()["exam"].only(Report)
    questions = report.data["questions"]
    if not isinstance(questions, list) or len(questions) != report.data["n"]:
        sys.exit("the exam's report shows fewer questions than were asked")
    return np.array([question["arms"]["tuned"]["value"] == 1.0 for question in questions], float)  # type: ignore[index,call-overload]


def table(scores: Scores, learned: dict[str, int], least: str) -> list[str]:
    """The ways from best to worst, each beside the least of them and beside the best."""
    rng = np.random.default_rng(0)
    means = {way: np.mean(list(by_seed.values()), axis=0) for way, by_seed in scores.items()}
    asked = len(next(iter(means.values())))
    draws = rng.integers(0, asked, (DRAWS, asked))
    order = sorted(means, key=lambda way: -means[way].mean())
    lines = [
        f"| learned | samples | each seed | right | 95 % | less {least} | less the best |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in order:
        seeds = ", ".join(f"{100 * right.mean():.1f}" for _, right in sorted(scores[way].items()))
        against = [_interval(means[way] - means[other], draws) for other in (least, order[0])]
        shown = [f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})" for mean, low, high in against]
        mean, low, high = _interval(means[way], draws)
        lines.append(
            f"| {way} | {learned[way]} | {seeds} | {100 * mean:.1f} % | {100 * low:.1f} to {100 * high:.1f} | "
            f"{shown[0] if way != least else ''} | {shown[1] if way != order[0] else ''} |"
        )
    return lines


def _interval(values: np.ndarray, draws: np.ndarray) -> tuple[float, float, float]:
    """Mean over questions, and the 2.5 % and 97.5 % points of its bootstrap distribution."""
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)
