"""A run that trains a tiny student: its weights stand in the run, leave it whole, and are not made twice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer, fake_server
from tests.runs.project import PLACES, Project
from tests.train.conftest import make_model_folder

from gristmill.core.events import read_events
from gristmill.models.checkpoint import verify

TUNE = {"kind": "train.sft", "model": "student", "context": 128, "batch": 256, "steps": 4, "threads": 1}
TUNE |= {"lora": {"r": 4, "alpha": 8}, "warmup_steps": 1, "needs": ["clean"]}


@pytest.fixture(scope="module")
def served() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


@pytest.fixture(scope="module")
def taught(served: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any]]:
    project = Project(tmp_path_factory.mktemp("taught"))
    project.add(*PLACES[:3])
    (project.folder / "student").mkdir()
    make_model_folder(project.folder / "student")
    recipe(project, served)
    return project, project.go("--name", "taught")


def recipe(project: Project, served: FakeServer, **stages: Any) -> None:
    writer = {"provider": "openai", "base_url": served.url, "model": "m"}
    models = {"writer": writer, "student": {"provider": "local", "model": "student"}}
    project.recipe(served.url, models=models, stages={"tune": TUNE, **stages})


def test_the_weights_stand_in_the_run_and_its_page_shows_the_loss(taught: tuple[Project, dict[str, Any]]) -> None:
    project, outcome = taught
    folder = Path(outcome["folder"])
    assert verify(folder / "checkpoints/tune").step == 4
    page = (folder / "report.html").read_text()
    assert "Training: tune" in page and ">training loss</" in page
    assert re.search(r"([1-9]\d*) of \1 conversations and texts teach where to stop", page)
    [made] = json.loads(project.run("show", "taught", "records", "--stage", "tune", "--json").stdout)
    assert made["step"] == 4 and (project.workspace / made["marks"]["folder"]).is_dir()
    assert "tune" in project.run("show", "taught", "lineage", made["id"]).stdout


def test_the_model_leaves_the_run_whole(taught: tuple[Project, dict[str, Any]]) -> None:
    project, _ = taught
    to = project.folder / "out"
    assert str(to) in project.run("export", "taught", "--format", "hf", "--to", to).stdout
    assert verify(to).step == 4
    assert "not empty" in project.run("export", "taught", "--format", "hf", "--to", to, code=2).stderr
    wrong = ("export", "taught", "--format", "hf", "--to", project.folder / "x")
    assert "no trained model of clean" in project.run(*wrong, "--stage", "clean", code=3).stderr


def test_damaged_weights_do_not_leave_the_run(taught: tuple[Project, dict[str, Any]]) -> None:
    project, outcome = taught
    [weights] = (Path(outcome["folder"]) / "checkpoints/tune").glob("*.safetensors")
    whole = weights.read_bytes()
    copy = weights.with_suffix(".new")
    copy.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    before = weights.rename(weights.with_suffix(".old"))
    copy.rename(weights)
    project.run("export", "taught", "--format", "hf", "--to", project.folder / "never", code=6)
    before.rename(weights)
    assert not (project.folder / "never").exists()


def test_another_run_with_the_same_data_trains_nothing(
    taught: tuple[Project, dict[str, Any]], served: FakeServer
) -> None:
    project, first = taught
    served.reset()
    recipe(project, served, more={"kind": "curate.dedup", "near": False, "needs": ["cloze"]})
    second = project.go()
    assert second["run"] != first["run"] and served.stats()["calls"] == 0
    events = list(read_events(Path(second["folder"]) / "events.ndjson"))
    assert not [e for e in events if e["event"] == "metric"]
    assert {"tune"} < {e["stage"] for e in events if e["event"] == "stage.reused"}
    weights = [Path(o["folder"]) / "checkpoints/tune/model.safetensors" for o in (first, second)]
    assert weights[0].stat().st_ino == weights[1].stat().st_ino


def test_where_and_in_which_passes_it_is_made_is_no_other_training(
    taught: tuple[Project, dict[str, Any]], served: FakeServer
) -> None:
    project, first = taught
    recipe(project, served)
    changes = {"device": "cpu", "forward": 128, "checkpointing": "on", "compile": "off"}
    again = project.go(*(f"--set=stages.tune.{name}={value}" for name, value in changes.items()))
    assert again["folder"] == first["folder"] and len(list((project.workspace / "artifacts").iterdir())) == 1
