"""`gristmill init --plugin` writes a package that installs, checks and trains as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.runs.project import Project
from tests.train.conftest import make_model_folder

from gristmill.core.events import read_events
from gristmill.models.checkpoint import verify


@pytest.fixture
def package(tmp_path: Path) -> tuple[Project, Path]:
    project = Project(tmp_path)
    said = project.run("init", "--plugin", tmp_path / "salt-mill").stdout
    assert "train.salt_mill" in said
    return project, tmp_path / "salt-mill"


def test_it_is_made_under_its_own_name_and_passes_the_check(package: tuple[Project, Path], tmp_path: Path) -> None:
    """With what an installation would put beside the code: names in the package's metadata."""
    project, folder = package
    assert not [p for p in folder.rglob("*") if p.is_file() and "{{" in p.read_text("utf-8")]
    info = folder / "src/salt_mill-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: salt_mill\nVersion: 0.1.0\n")
    points = {"stages": "stages:STAGES", "objectives": "objective:Answers", "sinks": "sink:SINKS"}
    lines = [f"[gristmill.{group}]\nsalt_mill = salt_mill.{where}\n" for group, where in points.items()]
    (info / "entry_points.txt").write_text("\n".join(lines))
    told = project.run("check", folder / "recipe.yaml", PYTHONPATH=str(folder / "src")).stdout
    assert "salt_mill.short" in told and "train.salt_mill" in told
    assert "train.salt_mill" in project.run("check", folder / "recipe.yaml", code=2).stderr  # not installed
    for name, object_, why in (
        ("sft", "objective:Answers", "redefines"),
        ("other", "sink:SINKS", "is no class made of"),
    ):
        (info / "entry_points.txt").write_text(f"[gristmill.objectives]\n{name} = salt_mill.{object_}\n")
        wrong = project.run("check", folder / "recipe.yaml", PYTHONPATH=str(folder / "src"), code=2).stderr
        assert f"plug-in objective {name} {why}" in wrong
    project.run("init", "--plugin", folder, code=2)  # not empty
    assert "no name of a package" in project.run("init", "--plugin", tmp_path / "1mill", code=2).stderr


@pytest.mark.slow
def test_installed_it_trains_with_its_objective_and_writes_to_its_sink(package: tuple[Project, Path]) -> None:
    project, folder = package
    site, student = project.folder / "site", project.folder / "student"
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet", "--target"]
    subprocess.run([*pip, site, folder], check=True, env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    student.mkdir()
    make_model_folder(student)
    whole = yaml.safe_load((folder / "recipe.yaml").read_text())
    whole["stages"]["tune"] |= {"context": 128, "epochs": None, "steps": 3, "threads": 1, "lora": {"r": 4}}
    whole["stages"]["short"]["words"] = 6
    (folder / "recipe.yaml").write_text(yaml.safe_dump(whole, sort_keys=False))

    def go() -> dict[str, Any]:
        student_is = f"models.student.model={student}"
        done = project.run("run", folder / "recipe.yaml", "--json", "--set", student_is, PYTHONPATH=str(site))
        return json.loads(done.stdout)

    outcome = go()
    assert outcome["funnel"]["short"]["rejected"] == {"long answer": 2}
    run = Path(outcome["folder"])
    assert verify(run / "checkpoints/tune").step == 3
    losses = [e for e in read_events(run / "events.ndjson") if "answer_tokens" in e]
    assert len(losses) == 3
    lines = (folder / "lines.txt").read_text()
    assert "tune 3 loss " in lines and lines.endswith("finished\n")
    objective = site / "salt_mill/objective.py"
    objective.write_text(objective.read_text().replace("1 / said.counts()", "2 / said.counts()"))
    assert go()["folder"] != outcome["folder"]  # other code: another run
