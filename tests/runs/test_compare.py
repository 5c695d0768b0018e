"""Runs side by side: what differs is shown, what is the same is not; exams are compared question by question."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.fakes.fixtures import FakeServer
from tests.runs.project import Project

from gristmill.core.errors import ConfigError
from gristmill.evaluate.stats import sign_test
from gristmill.runs.compare import compare, overlays
from gristmill.runs.execute import execute
from gristmill.runs.folder import RunFolder
from gristmill.runs.measures import curves_of, metrics_of
from gristmill.runs.plan import make_plan
from gristmill.runs.report.compare import compare_page, tables
from gristmill.runs.workspace import Workspace

EXAM = {"kind": "evaluate.exam", "models": ["judge"], "tasks": "exam.jsonl", "open_book": [], "needs": ["clean"]}


@pytest.fixture
def workspace(project: Project) -> Iterator[Workspace]:
    workspace = Workspace(project.workspace)
    yield workspace
    workspace.store.close()


def run(project: Project, workspace: Workspace, name: str, *sets: str) -> RunFolder:
    outcome = execute(make_plan(project.folder / "recipe.yaml", list(sets)), workspace, name=name)
    assert outcome.state == "finished", outcome.error
    return RunFolder(outcome.folder)


def recipe(project: Project, url: str) -> None:
    """The fake answers with words of the question, and so is right now and then."""
    asked = "Which of these stands by river {}: mill, dam, weir, tower or bridge?"
    questions = [{"question": asked.format(n), "answers": ["mill"]} for n in range(30)]
    project.write("exam.jsonl", "\n".join(map(json.dumps, questions)))
    models = {role: {"provider": "openai", "base_url": url, "model": role} for role in ("writer", "judge")}
    project.recipe(url, models=models, stages={"exam": EXAM})


def test_two_runs_side_by_side(project: Project, fake: FakeServer, workspace: Workspace) -> None:
    recipe(project, fake.url)
    sets = ("models.judge.model=other", "stages.facts.per_chunk=2", "stages.clean.near=false")
    one, two = run(project, workspace, "one"), run(project, workspace, "two", *sets)
    data = compare([one, two], workspace.root)
    assert [(r["name"], r["state"]) for r in data["runs"]] == [("one", "finished"), ("two", "finished")]
    assert data["runs"][0]["calls"] > data["runs"][1]["calls"] - 1 > 0
    differs = data["differs"]
    assert differs["models.judge.model"] == ["judge", "other"] and differs["stages.facts.per_chunk"] == [3, 2]
    assert {key.split(".")[0] for key in differs} == {"models", "stages", "models used: judge"} and len(differs) == 3
    assert [counts["given"] for counts in data["funnel"]["chunks"]] == [one.outputs()["chunks"].count] * 2
    _exam_agrees(data, one, two)


def _exam_agrees(data: dict[str, Any], one: RunFolder, two: RunFolder) -> None:
    """The sign test is that of the answers themselves."""
    right = [metrics_of(folder)["exam.judge.right"] for folder in (one, two)]
    arms = data["exams"]["exam"]["arms"]["judge"]
    assert [share["right"] for share in arms] == right and min(right) > 0 and max(right) < 30
    [paired] = data["exams"]["exam"]["paired"]
    assert paired["n"] == 30 and paired["others"] == 0 and paired["run"] == "two" and paired["against"] == "one"
    assert (
        paired["only_this"] - paired["only_that"] == right[1] - right[0]
        and paired["only_this"] + paired["only_that"] > 0
    )
    assert paired["p"] == sign_test(paired["only_this"], paired["only_that"])
    assert paired["low"] <= paired["difference"] == (right[1] - right[0]) / 30 <= paired["high"]
    shown = tables(data)
    assert shown["What differs"][1][0] == ["models.judge.model", "judge", "other"]
    assert shown["Exam: exam"][1][0][1].startswith(f"{right[0]:.0f}/30") and "Funnel" in shown


def test_runs_of_other_recipes_compare_too(project: Project, fake: FakeServer, workspace: Workspace) -> None:
    recipe(project, fake.url)
    one = run(project, workspace, "one", "stages.exam.limit=20")
    gone = [f"stages.{name}=null" for name in ("facts", "cloze", "clean")]
    two = run(project, workspace, "one", "name=small", "stages.exam.needs=[chunks]", *gone)
    data = compare([one, two], workspace.root)
    assert [r["name"] for r in data["runs"]] == [one.path.name, two.path.name]  # both are called `one`
    assert data["funnel"]["cloze"][1] is None and data["differs"]["stages.cloze.kind"] == ["generate.cloze", None]
    [paired] = data["exams"]["exam"]["paired"]
    assert paired["n"] == 20 and paired["others"] == 10 and paired["p"] == 1.0  # the same answers, where both sat
    with pytest.raises(ConfigError, match="two runs, or more"):
        compare([one, one], workspace.root)


def test_losses_are_overlaid_wherever_they_were_made(tmp_path: Path) -> None:
    """A training taken over from another run has its curves there; steps repeated after a kill count once."""

    def write(name: str, *events: dict[str, Any]) -> RunFolder:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        folder.joinpath("manifest.json").write_bytes(orjson.dumps({"name": name}))
        lines = [orjson.dumps({"time": 0, "stage": "tune", **event}) for event in events]
        folder.joinpath("events.ndjson").write_bytes(b"\n".join(lines) + b"\n")
        return RunFolder(folder)

    steps = [{"event": "metric", "step": n, "loss": 5.0 - n, "tokens_per_second": 100 + n} for n in (1, 2, 2, 3)]
    made = write("made", *steps, {"event": "metric", "step": 3, "eval_loss": 2.5, "note": "x"})
    taken = write("taken", {"event": "stage.reused", "source": "runs/made/stages/02-tune"})
    for folder in (made, taken):
        assert curves_of(folder, tmp_path)["tune"]["loss"] == [(1, 4.0), (2, 3.0), (3, 2.0)]
    drawn = overlays([made, taken], tmp_path)
    assert list(drawn) == ["tune: training loss", "tune: validation loss"]
    assert set(drawn["tune: training loss"]) == {"made", "taken"}
    data: dict[str, Any] = {"differs": {}, "funnel": {}, "data": [], "metrics": {}, "exams": {}}
    told = {"recipe": "r", "started": "", "state": "finished", "calls": 0, "tokens": 0, "usd": 0.0}
    data["runs"] = [{"name": name, "id": name, **told} for name in ("made", "taken")]
    page = compare_page(data, drawn)
    assert page.count("<polyline") == 4 and "tune: validation loss" in page


def test_at_the_terminal(project: Project, fake: FakeServer, workspace: Workspace) -> None:
    recipe(project, fake.url)
    run(project, workspace, "one", "stages.exam.limit=4")
    run(project, workspace, "two", "stages.exam.limit=5")
    done = project.run("compare", "one", "two")
    lines = done.stdout.splitlines()
    assert ["stages.exam.limit", "4", "5"] in [line.split() for line in lines]
    page = Path(lines[-1].split()[1])
    assert page.is_file() and page.parent == project.workspace / "comparisons"
