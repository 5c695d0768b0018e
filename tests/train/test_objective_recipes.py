"""The recipes of the objectives run as they are, on a tiny model, and say what they are for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from gristmill.core.events import read_events
from gristmill.models.checkpoint import verify
from gristmill.models.weights import at_folder
from gristmill.runs.execute import execute
from gristmill.runs.exports import trained_stage
from gristmill.runs.folder import RunFolder
from gristmill.runs.plan import make_plan
from gristmill.runs.workspace import Workspace

RECIPES = Path(__file__).parents[2] / "recipes"
pytestmark = pytest.mark.usefixtures("reader")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("pretrain", {"eval_loss"}),
        ("preference", {"accuracy", "margin", "chosen_reward", "rejected_reward", "eval_accuracy"}),
        ("kto", {"kl", "desirable_reward", "undesirable_reward", "eval_loss"}),
        ("reward", {"accuracy", "margin", "eval_margin"}),
        ("classify", {"accuracy", "macro_f1", "eval_macro_f1"}),
    ],
)
def test_it_runs(name: str, told: set[str], model_folder: Path, tmp_path: Path) -> None:
    less = {
        "context": 256,
        "batch": 512,
        "epochs": "null",
        "steps": 4,
        "eval_every": 4,
        "threads": 1,
        "warmup_steps": 1,
    }
    sets = [f"stages.tune.{key}={value}" for key, value in less.items()]
    plan = make_plan(RECIPES / f"{name}.yaml", [f"models.student.model={model_folder}", *sets])
    outcome = execute(plan, Workspace(tmp_path / "ws"))
    assert outcome.state == "finished", outcome.error
    assert not any(stage["rejected"] for stage in outcome.summary["funnel"].values())
    said: set[str] = set()
    for event in read_events(outcome.folder / "events.ndjson"):
        said |= event.keys()
    assert told <= said
    folder = outcome.folder / "checkpoints/tune"
    metadata: dict[str, Any] = verify(folder).metadata
    stated = orjson.loads((folder / "config.json").read_bytes())["architectures"][0]
    assert stated == ("LlamaForSequenceClassification" if metadata.get("head") == "score" else "LlamaForCausalLM")


def test_a_training_goes_on_from_the_one_before(model_folder: Path, tmp_path: Path) -> None:
    """`model: tuned`, where tuned is `{from: tune}`: what was fine-tuned is what preferences are learned on."""
    rows = str(RECIPES.parent / "examples/training/preferences.jsonl")
    less: dict[str, Any] = {"context": 256, "batch": 512, "steps": 2, "threads": 1, "warmup_steps": 1}
    answers = {"kind": "ingest.samples", "paths": [rows], "format": "completion", "names": {"completion": "chosen"}}
    recipe = {
        "name": "chain",
        "models": {"student": {"provider": "local", "model": str(model_folder)}, "tuned": {"from": "tune"}},
        "stages": {
            "pairs": {"kind": "ingest.samples", "paths": [rows]},
            "answers": answers,
            "tune": {"kind": "train.sft", "model": "student", **less},
            "prefer": {"kind": "train.dpo", "model": "tuned", "needs": ["pairs"], **less},
        },
    }
    (tmp_path / "recipe.yaml").write_bytes(orjson.dumps(recipe))
    outcome = execute(make_plan(tmp_path / "recipe.yaml"), Workspace(tmp_path / "ws"))
    assert outcome.state == "finished", outcome.error
    weights = {name: at_folder(outcome.folder / "checkpoints" / name) for name in ("tune", "prefer")}
    of = {name: verify(each.path).metadata for name, each in weights.items()}
    assert of["tune"]["base"]["sha256"] == at_folder(model_folder).sha256
    assert of["prefer"]["base"]["sha256"] == of["prefer"]["identity"]["base"] == weights["tune"].sha256
    steps = [e for e in read_events(outcome.folder / "events.ndjson") if e.get("stage") == "prefer" and "margin" in e]
    assert steps[0]["margin"] == pytest.approx(0, abs=1e-3)  # beside the tuned model itself, nothing has moved yet
    assert trained_stage(RunFolder(outcome.folder), None) == "prefer"
