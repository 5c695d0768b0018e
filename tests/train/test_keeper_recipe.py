"""recipes/best_k.yaml as it is, on a tiny model: the best looks are models, and the final one is the best of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.core.events import read_events
from gristmill.models.checkpoint import verify
from gristmill.models.load import load_model
from gristmill.models.weights import locate
from gristmill.runs.execute import execute
from gristmill.runs.plan import make_plan
from gristmill.runs.workspace import Workspace

RECIPE = Path(__file__).parents[2] / "recipes/best_k.yaml"
pytestmark = pytest.mark.usefixtures("reader")


def test_the_best_models_are_kept(model_folder: Path, tmp_path: Path) -> None:
    less = {"context": 256, "batch": 512, "threads": 1, "warmup_steps": 1, "learning_rate": 3e-2}
    sets = [f"models.student.model={model_folder}", *(f"stages.tune.{key}={value}" for key, value in less.items())]
    outcome = execute(make_plan(RECIPE, sets), Workspace(tmp_path / "ws"))
    assert outcome.state == "finished", outcome.error
    events = list(read_events(outcome.folder / "events.ndjson"))
    looks = sorted((e["eval_loss"], e["step"]) for e in events if "eval_loss" in e)
    (stage,) = (tmp_path / "ws/artifacts").glob("*")
    kept = {path.name: verify(path) for path in (stage / "best").iterdir()}
    assert {(m.metadata["metrics"]["eval_loss"], m.step) for m in kept.values()} == set(looks[:3])
    final = verify(outcome.folder / "checkpoints/tune")
    assert final.step == looks[0][1]
    best = kept[f"step-{final.step:06d}"]
    assert {f.name: f.sha256 for f in best.files} == {f.name: f.sha256 for f in final.files}
    other = next(path for path in (stage / "best").iterdir() if path.name != f"step-{final.step:06d}")
    assert load_model(locate(str(other), base=Path("/"))).config.vocab_size == 400
    assert not (stage / "checkpoints").exists()
