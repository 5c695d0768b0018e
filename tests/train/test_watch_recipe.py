"""recipes/trackers.yaml as it is, on a tiny model: three trackers without a network, and the page of the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.runs.test_report import Balanced

from gristmill.core.events import read_events
from gristmill.runs.execute import execute
from gristmill.runs.folder import RunFolder
from gristmill.runs.plan import make_plan
from gristmill.runs.report import write_report
from gristmill.runs.workspace import Workspace

RECIPE = Path(__file__).parents[2] / "recipes/trackers.yaml"
TINY = ("context=128", "batch=256", "threads=1", "steps=20", "sample_every=20")
pytestmark = pytest.mark.usefixtures("reader")


def test_the_recipe_is_followed_by_three_trackers_and_shown_on_the_page(model_folder: Path, tmp_path: Path) -> None:
    sets = [f"models.student.model={model_folder}", *(f"stages.tune.{change}" for change in TINY)]
    outcome = execute(make_plan(RECIPE, sets), Workspace(tmp_path / "ws"), name="trackers")
    assert outcome.state == "finished", outcome.error
    run = outcome.folder
    events = list(read_events(run / "events.ndjson"))
    assert [e["message"] for e in events if e["event"] == "warning"] == []
    losses = [e["loss"] for e in events if e["event"] == "metric" and "loss" in e]
    rows = [json.loads(line) for line in (run / "training/tune/metrics.ndjson").read_text().splitlines()]
    assert len(losses) == 20 and [row["loss"] for row in rows if "loss" in row] == losses

    from mlflow.tracking import MlflowClient
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "sinks/tensorboard/tune"))
    board.Reload()
    assert [s.value for s in board.Scalars("loss")] == [pytest.approx(loss) for loss in losses]
    client = MlflowClient(tracking_uri=(run / "sinks/mlflow/mlruns").as_uri())
    [followed] = client.search_runs([client.get_experiment_by_name("trackers").experiment_id])
    history = client.get_metric_history(followed.info.run_id, "tune/loss")
    assert [m.value for m in sorted(history, key=lambda m: m.step)] == losses
    papers = {file.path for file in client.list_artifacts(followed.info.run_id, "tune")}
    assert {"tune/mask_report.json", "tune/plan.json", "tune/metrics.csv", "tune/samples.ndjson"} <= papers
    assert list((run / "sinks/wandb/wandb").glob("offline-run-*/files/tune/metrics.csv"))
    _check_page(run)


def _check_page(run: Path) -> None:
    """Once more of the folder alone: nothing on it comes from elsewhere."""
    (run / "report.html").unlink()
    write_report(RunFolder(run))
    text = (run / "report.html").read_text()
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    for words in (
        *("<h2>Training: tune</h2>", "training loss", "validation loss", "learning rate", "gradient norm"),
        *("tokens per second", "share of the measured peak", "memory, MiB", "<h3>What the loss sees</h3>"),
        *("<mark>The Saint Oddo needs 95 minutes for it.&lt;|im_end|&gt;</mark>", "planned peak"),
        *("<h3>What it answered on the way</h3>", "<td>step 20</td>", "Who is the captain of the Saint Oddo?"),
    ):
        assert words in text, words
