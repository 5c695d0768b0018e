"""recipes/{processes,accumulation,precision,qlora}.yaml as they are, on a tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from gristmill.core.events import read_events
from gristmill.models.checkpoint import verify
from gristmill.runs.execute import execute
from gristmill.runs.plan import make_plan
from gristmill.runs.workspace import Workspace

RECIPES = Path(__file__).parents[2] / "recipes"
pytestmark = pytest.mark.usefixtures("reader")


@pytest.fixture
def ran(model_folder: Path, tmp_path: Path) -> Any:
    def run(name: str, workspace: str = "ws", **changes: object) -> tuple[list[dict[str, Any]], dict[str, Any], Path]:
        """The rows of the training's metrics, its memory plan, and its final model."""
        less = {"context": 256, "threads": 1, "warmup_steps": 1, "learning_rate": 3e-3, **changes}
        sets = [f"models.student.model={model_folder}", *(f"stages.tune.{key}={value}" for key, value in less.items())]
        outcome = execute(make_plan(RECIPES / f"{name}.yaml", sets), Workspace(tmp_path / workspace))
        assert outcome.state == "finished", outcome.error
        rows = [dict(e) for e in read_events(outcome.folder / "events.ndjson") if "loss" in e and "step" in e]
        plan = orjson.loads((outcome.folder / "training/tune/plan.json").read_bytes())
        final = outcome.folder / "checkpoints/tune"
        assert verify(final).step == len(rows)
        assert rows[-1]["loss"] < rows[0]["loss"]
        return rows, plan, final

    return run


def test_accumulation(ran: Any) -> None:
    small, plan, _ = ran("accumulation")
    assert (plan["forward"], plan["checkpointing"]) == (512, True)
    assert small[0]["tokens"] > 3 * plan["forward"]


@pytest.mark.slow
def test_another_size_of_passes_changes_nothing_but_rounding(ran: Any) -> None:
    small, _, _ = ran("accumulation")
    whole, plan, _ = ran("accumulation", "whole", forward=4096, checkpointing="off")
    assert (plan["forward"], plan["checkpointing"]) == (4096, False)
    assert [row["loss"] for row in whole] == pytest.approx([row["loss"] for row in small], rel=2e-2)  # in bf16


@pytest.mark.slow
def test_precision(ran: Any) -> None:
    _, plan, _ = ran("precision")
    assert plan["device"] == "cpu"
    assert plan["optimizer"] == int(2.1 * plan["trained"])


@pytest.mark.slow
def test_qlora(ran: Any) -> None:
    _, plan, final = ran("qlora")
    assert plan["weights"] < 4 * plan["parameters"]
    assert verify(final).metadata["dtype"] == "float32"


@pytest.mark.slow
def test_processes(ran: Any) -> None:
    two, _, _ = ran("processes", dtype="fp32")
    one, _, _ = ran("processes", "alone", dtype="fp32", processes=1)  # in the first, it is the same run
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-6)
