"""Sweeps: the trials a recipe asks for, each a run of its own; what they share is done once; what was done is found."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer
from tests.runs.project import Project
from tests.train.conftest import make_model_folder

from gristmill.core.errors import BudgetError, Cancelled, ConfigError
from gristmill.runs.execute import execute
from gristmill.runs.folder import RunFolder
from gristmill.runs.plan import make_plan
from gristmill.runs.schema import recipe_schema
from gristmill.runs.search import Sweep, corners, listed, proposals
from gristmill.runs.source import RecipeError
from gristmill.runs.sweep import Sweeping, trial_plans
from gristmill.runs.workspace import Workspace

EXAM = {"kind": "evaluate.exam", "models": ["writer"], "tasks": "exam.jsonl", "open_book": [], "needs": ["clean"]}
RECIPE = Path(__file__).parents[2] / "recipes/sweep.yaml"
LIMITS = {"metric": "exam.n", "goal": "max", "keys": {"stages.exam.limit": [1, 3, 2]}}
"""Trials whose metric is known beforehand: so many questions."""


def recipe(project: Project, url: str, sweep: Any = LIMITS, **changes: Any) -> Path:
    questions = [{"question": f"How deep is well {n}?", "answers": [f"{n} metres"]} for n in range(6)]
    project.write("exam.jsonl", "\n".join(map(json.dumps, questions)))
    stages = {"exam": EXAM, **changes.pop("stages", {})}
    return project.recipe(url, stages=stages, sweep=sweep, **changes)


@pytest.fixture
def workspace(project: Project) -> Iterator[Workspace]:
    workspace = Workspace(project.workspace)
    yield workspace
    workspace.store.close()


def swept(path: Path, workspace: Workspace, *sets: str, stop: threading.Event | None = None) -> Sweeping:
    sweeping = Sweeping(make_plan(path, list(sets)), workspace, command=["gristmill", "run", str(path)])
    for trial in sweeping.trials():
        sweeping.run(trial, stop=stop)
    return sweeping


def attempts(sweeping: Sweeping) -> list[int]:
    runs = [RunFolder(sweeping.workspace.runs / line.run) for line in sweeping.lines]
    return [len(run.manifest["attempts"]) for run in runs]


def test_trials_are_runs_that_share_what_comes_before_the_swept_stage(
    project: Project, fake: FakeServer, workspace: Workspace
) -> None:
    sweeping = swept(recipe(project, fake.url), workspace)
    assert [line.value for line in sweeping.lines] == [1, 3, 2]
    assert sweeping.best and sweeping.best.number == 2
    assert len({line.run for line in sweeping.lines}) == 3
    names = {m["name"] for m in workspace.manifests()}
    assert names == {"sweep-little-01", "sweep-little-02", "sweep-little-03"}
    by_stage = [
        {s: p.calls for (s, _), p in workspace.store.spent_by_stage(line.run).items()} for line in sweeping.lines
    ]
    assert by_stage[0]["facts"] > 0 and all("facts" not in later for later in by_stage[1:])
    assert fake.stats()["calls"] == by_stage[0]["facts"] + 3  # three questions, each asked once over all trials
    told = json.loads((sweeping.folder / "sweep.json").read_text())
    assert told["best"] == 2 and told["command"].endswith("--set stages.exam.limit=3")
    page = (sweeping.folder / "sweep.html").read_text()
    assert page.count("<circle") == 3 and page.count('class="point strong"') == 1
    assert "exam.n by stages.exam.limit" in page and "http" not in page


def test_a_finished_trial_is_found_and_another_sweep_finds_it_too(
    project: Project, fake: FakeServer, workspace: Workspace
) -> None:
    path = recipe(project, fake.url)
    first = swept(path, workspace)
    calls = fake.stats()["calls"]
    again = swept(path, workspace)
    assert again.as_json() == first.as_json() and attempts(again) == [1, 1, 1]
    wider = swept(path, workspace, "sweep.goal=min")
    assert wider.folder != first.folder and wider.best and wider.best.number == 1
    assert attempts(wider) == [1, 1, 1] and fake.stats()["calls"] == calls


def test_the_best_trial_is_a_run_like_any_other(project: Project, fake: FakeServer, workspace: Workspace) -> None:
    path = recipe(project, fake.url)
    sweeping = swept(path, workspace)
    done = project.run("sweep", path, "--quiet")
    rows = [line.split() for line in done.stdout.splitlines()[1:4]]
    assert [row[:3] for row in rows] == [["1", "1", "1"], ["2*", "3", "3"], ["3", "2", "2"]]
    assert sweeping.best and sweeping.command_of(sweeping.best) in done.stdout and sweeping.best.run in done.stdout
    shown = execute(make_plan(path, ["stages.exam.limit=3"]), workspace)
    assert shown.state == "shown" and shown.folder.name == sweeping.best.run
    assert "sweep" not in (shown.folder / "recipe.yaml").read_text()
    checked = project.run("check", path).stdout
    assert "3 trials by grid, compared by exam.n" in checked
    assert [line.split() for line in checked.splitlines() if line.startswith("    ")] == [
        ["1", "1"],
        ["2", "3"],
        ["3", "2"],
    ]


def test_a_budget_holds_over_all_trials(project: Project, fake: FakeServer, workspace: Workspace) -> None:
    sweep = {**LIMITS, "keys": {"stages.facts.per_chunk": [1, 2, 3]}}
    path = recipe(project, fake.url, sweep, stages={"exam": {**EXAM, "limit": 1}})
    one = len(swept(path, workspace, "sweep.keys={stages.facts.per_chunk: [4]}").lines) and fake.stats()["calls"]
    fake.reset()
    budget = f"budget.calls={one + 2}"
    sweeping = swept(path, workspace, budget)
    assert [line.state for line in sweeping.lines] == ["finished", "paused"]
    assert isinstance(sweeping.ended, BudgetError) and fake.stats()["calls"] == one + 2
    assert "raise budget.calls" in sweeping.ended.hint
    done = swept(path, workspace).lines
    assert [line.state for line in done] == ["finished"] * 3
    seconds = f"budget.seconds={sum(line.seconds for line in done) + 0.01}"
    late = swept(path, workspace, seconds, "sweep.keys={stages.facts.per_chunk: [1, 2, 3, 6]}")
    assert [line.state for line in late.lines] == ["finished"] * 3 + ["paused"]


def test_a_trial_whose_records_could_not_all_be_asked_says_so(
    project: Project, fake: FakeServer, workspace: Workspace
) -> None:
    fake.reset(poison="Tessmoor")
    writer = {"provider": "openai", "base_url": fake.url, "model": "m", "attempts": 1}
    path = recipe(project, fake.url, models={"writer": writer})
    sweeping = swept(path, workspace, "sweep.keys={stages.exam.limit: [2]}")
    [line] = sweeping.failed
    assert (line.state, line.exit, line.value) == ("incomplete", 4, 2)
    fake.reset(poison="")
    assert not swept(path, workspace, "sweep.keys={stages.exam.limit: [2]}").failed


def test_a_trial_that_fails_is_shown_and_the_others_go_on(project: Project, fake: FakeServer) -> None:
    """A recipe without a sweep, and a sweep from the command line."""
    judge = {"provider": "openai", "base_url": fake.url, "model": "m", "attempts": 1}
    models = {"writer": {**judge, "attempts": 3}, "judge": judge}
    path = recipe(project, fake.url, None, stages={"exam": {**EXAM, "models": ["judge"]}}, models=models)
    keys = ("--sweep", f"models.judge.base_url=http://127.0.0.1:9/v1,{fake.url}", "--sweep", "stages.exam.limit=[3]")
    sets = ("--set", "sweep.metric=exam.n", "--set", "sweep.goal=max")
    done = project.run("sweep", path, "--json", "--name", "judges", *keys, *sets, code=4)
    told = json.loads(done.stdout)
    assert [trial["state"] for trial in told["trials"]] == ["failed", "finished"]
    assert told["best"] == 2 and told["trials"][1]["value"] == 3 and "127.0.0.1:9" in told["trials"][0]["error"]
    [page] = project.workspace.glob("sweeps/judges-*/sweep.html")
    assert "127.0.0.1:9" in page.read_text().partition("Did not finish")[2]


@pytest.mark.slow
def test_a_sweep_that_is_killed_goes_on_with_the_trial_under_way(project: Project, fake: FakeServer) -> None:
    fake.reset(latency_ms=60)
    sweep = {**LIMITS, "keys": {"stages.exam.max_tokens": [8, 9, 10]}}
    path = recipe(project, fake.url, sweep)
    environment = {**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace)}
    child = subprocess.Popen(project.command("sweep", path, "--quiet"), env=environment, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while len(list(project.workspace.glob("runs/*/manifest.json"))) < 2 and time.monotonic() < end:
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    [kept] = project.workspace.glob("sweeps/*/sweep.json")
    assert len(json.loads(kept.read_text())["trials"]) == 1
    told = json.loads(project.run("sweep", path, "--json").stdout)
    runs = [RunFolder(project.workspace / "runs" / trial["run"]) for trial in told["trials"]]
    assert [len(run.manifest["attempts"]) for run in runs] == [1, 2, 1]
    answered = fake.stats()["answered"]
    facts = runs[0].summary["paid"][0]["calls"]
    assert len(answered) == facts + 3 * 6 and sum(answered.values()) <= len(answered) + 8  # those in flight at the kill


def test_ctrl_c_stops_a_sweep_between_answers(project: Project, fake: FakeServer, workspace: Workspace) -> None:
    stop = threading.Event()
    stop.set()
    sweeping = swept(recipe(project, fake.url), workspace, stop=stop)
    assert [line.state for line in sweeping.lines] == ["cancelled"] and isinstance(sweeping.ended, Cancelled)
    assert fake.stats()["calls"] == 0 and sweeping.best is None


def test_a_metric_that_nothing_measures_is_an_error_as_early_as_that_is_known(
    project: Project, fake: FakeServer, workspace: Workspace
) -> None:
    path = recipe(project, fake.url)
    with pytest.raises(RecipeError, match=r"no stage of this recipe measures `tune.eval_loss`.* measure: exam"):
        swept(path, workspace, "sweep.metric=tune.eval_loss")
    with pytest.raises(RecipeError, match=r"will not measure `exam.tuned.accuracy`.*exam.writer.accuracy"):
        swept(path, workspace, "sweep.metric=exam.tuned.accuracy")
    assert fake.stats()["calls"] == 0 and not workspace.runs.exists()
    plain = project.recipe(fake.url)
    with pytest.raises(ConfigError, match="no `sweep:`"):
        swept(plain, workspace)


@pytest.mark.parametrize(
    ("sweep", "words"),
    [
        ({"metrics": "exam.n"}, "unknown key `metrics`. Did you mean `metric`?"),
        ({"goal": "most"}, "Input should be 'min' or 'max'"),
        ({"keys": {}}, "at least 1 item"),
        ({"keys": {"stages.exams.limit": [1]}}, "names nothing in this recipe. Did you mean stages.exam?"),
        ({"keys": {"stages.exam.limits": [1]}}, "unknown key `limits`. Did you mean `limit`?"),
        ({"keys": {"stages.exam.limit": [1, 0]}}, "greater than or equal to 1"),
        ({"keys": {"stages.exam.limit": []}}, "at least 1 item"),
        ({"keys": {"stages.exam.limit": 3}}, "valid dictionary"),
        ({"keys": {"budget.usd": [1, 2]}}, "cannot be swept"),
        ({"keys": {"stages.exam": [None], "stages.exam.limit": [1]}}, "lies in `stages.exam`"),
        ({"keys": {"stages.exam.limit": {"from": 1, "to": 4}}}, "a grid takes lists"),
        ({"by": "random"}, "random needs `samples`"),
        ({"samples": 3}, "`samples` belongs to random"),
        ({"by": "random", "samples": 2, "keys": {"stages.exam.limit": {"from": 4, "to": 1}}}, "`from` is below `to`"),
        ({"by": "random", "samples": 2, "keys": {"seed": {"from": 0, "to": 1, "scale": "log"}}}, "above 0"),
        ({"by": "random", "samples": 2, "keys": {"seed": {"from": 1, "until": 2}}}, "unknown key `keys.seed.until`"),
        ({"by": "optuna", "samples": 2, "keys": {"stages.exam.limit": {"from": 0, "to": 2}}}, "than or equal to 1"),
    ],
)  # fmt: skip
def test_a_sweep_is_strict(project: Project, sweep: dict[str, Any], words: str) -> None:
    path = recipe(project, "http://127.0.0.1:9/v1", {**LIMITS, **sweep})
    said = project_error(path)
    assert words in said and "recipe.yaml:" in said


def project_error(path: Path) -> str:
    with pytest.raises(RecipeError) as caught:
        trial_plans(make_plan(path))
    return caught.value.message


def test_keys_of_the_command_line_are_as_strict_and_the_schema_knows_the_recipes(project: Project) -> None:
    path = recipe(project, "http://127.0.0.1:9/v1", None)
    sets = ["sweep.metric=exam.n", "sweep.goal=max"]
    with pytest.raises(RecipeError, match=r"--sweep stages.exam.limits=1: unknown key"):
        trial_plans(make_plan(path, sets, sweeps=["stages.exam.limits=1"]))
    ways = ["stages.exam.limit=1, 2", "stages.exam.max_tokens=[8]", "seed={choice: [4, 5]}"]
    found = trial_plans(make_plan(path, sets, sweeps=ways))
    assert [tuple(values.values()) for values, _ in found] == [(1, 8, 4), (1, 8, 5), (2, 8, 4), (2, 8, 5)]
    assert [plan.recipe.seed for _, plan in found] == [4, 5, 4, 5]
    assert "sweep" in recipe_schema()["properties"]


def space(**changes: Any) -> Sweep:
    keys = {"stages.a.rate": {"from": 1e-4, "to": "1e-1", "scale": "log"}, "stages.a.r": {"from": 1, "to": 3}}
    keys |= {"stages.a.x": {"choice": ["one", None]}}
    return Sweep.model_validate(
        {"metric": "a.b", "goal": "min", "by": "random", "samples": 200, "keys": keys, **changes}
    )


def test_draws_depend_on_the_seed_and_on_no_other_key_or_trial() -> None:
    drawn = listed(space(), 5) or []
    assert drawn == listed(space(), 5) and drawn != listed(space(), 6)
    assert listed(space(samples=20), 5) == drawn[:20]
    rates = sorted(values["stages.a.rate"] for values in drawn)
    assert rates[0] >= 1e-4 and rates[-1] <= 0.1 and 1.5e-3 < rates[100] < 7e-3  # the middle of the logarithms
    counts = [[v["stages.a.r"] for v in drawn].count(n) for n in (1, 2, 3)]
    assert sum(counts) == len(drawn) and min(counts) > 40
    assert {values["stages.a.x"] for values in drawn} == {"one", None}
    less = {key: values for key, values in space().model_dump(by_alias=True)["keys"].items() if key != "stages.a.x"}
    assert [v["stages.a.rate"] for v in listed(space(keys=less), 5) or []] == [v["stages.a.rate"] for v in drawn]


def test_a_grid_has_every_combination_once_and_reads_numbers_as_they_were_meant() -> None:
    sweep = space(by="grid", samples=None, keys={"stages.a.rate": ["1e-3", 2, 2], "stages.a.r": [1, 4]})
    made = [tuple(values.values()) for values in listed(sweep, 0) or []]
    assert made == [(0.001, 1), (0.001, 4), (2, 1), (2, 4)]


def test_optuna_proposes_the_same_for_the_same_answers_and_learns_from_them() -> None:
    def search(seed: int) -> list[dict[str, Any]]:
        asked = proposals(space(by="optuna", samples=40), seed)
        values, found = next(asked), []
        while True:
            found.append(values)
            try:
                rate = values["stages.a.rate"]
                values = asked.send(None if len(found) == 3 else abs(rate - 0.01))  # one trial failed
            except StopIteration:
                return found

    found = search(1)
    assert len(found) == 40 and found == search(1) and found != search(2)
    early, late = ([abs(v["stages.a.rate"] - 0.01) for v in part] for part in (found[:10], found[-10:]))
    assert sum(late) < sum(early) / 2
    ends = corners(space(by="optuna"))
    assert {v["stages.a.rate"] for v in ends} == {1e-4, 0.1} and {v["stages.a.r"] for v in ends} == {1, 3}


def test_optuna_searches_runs_and_finds_them_again(project: Project, fake: FakeServer, workspace: Workspace) -> None:
    keys = {"stages.exam.limit": {"from": 1, "to": 6}}
    path = recipe(project, fake.url, {**LIMITS, "by": "optuna", "samples": 4, "keys": keys})
    first = swept(path, workspace)
    assert len(first.lines) == 4 and first.best
    assert first.best.value == max(line.values["stages.exam.limit"] for line in first.lines)
    calls = fake.stats()["calls"]
    assert swept(path, workspace).as_json() == first.as_json() and fake.stats()["calls"] == calls
    assert set(attempts(first)) == {1}


def test_the_recipe_for_sweeps_names_four_trials() -> None:
    plan = make_plan(RECIPE, ["models.student.model=smollm2-135m-instruct"])
    assert [tuple(values.values()) for values, _ in trial_plans(plan)] == [
        (r, n) for r in (5e-4, 2e-3) for n in (8, 32)
    ]


@pytest.mark.slow
def test_the_recipe_for_sweeps_finds_the_better_rate(tmp_path: Path) -> None:
    """On a tiny model, whose losses are what a second sweep repeats to the bit."""
    (tmp_path / "student").mkdir()
    model = f"models.student.model={make_model_folder(tmp_path / 'student')}"
    sets = [model, "stages.tune.threads=1", "stages.tune.tokens=600", "stages.tune.context=128"]
    workspace = Workspace(tmp_path / "ws")
    sweeping = swept(RECIPE, workspace, *sets)
    workspace.store.close()
    assert [line.state for line in sweeping.lines] == ["finished"] * 4, [line.error for line in sweeping.lines]
    losses = {tuple(line.values.values()): line.value for line in sweeping.lines}
    assert set(losses) == {(5e-4, 8), (5e-4, 32), (2e-3, 8), (2e-3, 32)} and len(set(losses.values())) == 4
    best = sweeping.best
    assert best and best.value == min(v for v in losses.values() if v is not None)
    assert best.metrics["tune.eval_loss"] == best.value and best.values["stages.tune.learning_rate"] == 2e-3
    shutil.rmtree(tmp_path / "ws")
    one = ["sweep.keys={stages.tune.lora.r: [32]}", "stages.tune.learning_rate=0.002"]
    workspace = Workspace(tmp_path / "ws")
    again = swept(RECIPE, workspace, *sets, *one)
    workspace.store.close()
    assert again.lines[0].value == losses[2e-3, 32]
