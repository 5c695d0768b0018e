"""How much the demo teaches: `recipes/demo.yaml` from nothing with three seeds; the exam, and what each phase took."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from bench.command import gristmill

RECIPE = Path(__file__).parents[1] / "recipes/demo.yaml"
SEEDS = tuple(int(seed) for seed in os.environ.get("SEEDS", "7 8 9").split())


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for seed in SEEDS:
            run = gristmill("run", str(RECIPE), "--json", "--set", f"seed={seed}", workspace=folder)
            outcome = json.loads(run.out)
            events = Path(outcome["folder"], "events.ndjson").read_text().splitlines()
            ends = [e for e in map(json.loads, events) if e["event"] == "stage.finished"]
            took = ", ".join(f"{e['stage']} {e['seconds']:.0f} s" for e in ends if e["seconds"] >= 1)
            print(f"seed {seed}: {run.wall:.0f} s in all ({took})")
            print(gristmill("show", outcome["run"], workspace=folder).out.partition("\nexam")[2])
