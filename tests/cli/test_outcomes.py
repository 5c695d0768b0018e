"""What scripts rely on: exit codes, one JSON document, quiet, pipes, names; what is said when a part is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fakes.fixtures import FakeServer
from tests.runs.project import PLACES, Project


@pytest.fixture(scope="module")
def done(_fake: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with a finished run; only looked at."""
    project = Project(tmp_path_factory.mktemp("done"))
    project.add(*PLACES[:4])
    _fake.reset(latency_ms=0, p429=0, p500=0)
    project.recipe(_fake.url)
    project.go("--name", "mine")
    return project


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        (["show", "nobody"], 3, "no run is called nobody"),
        (["show", "mine", "records", "--stage", "nothing"], 3, "no finished stage"),
        (["show", "mine", "lineage", "zzzz"], 3, "no record's id begins"),
        (["show", "mine", "lineage", ""], 3, "records' ids begin"),
        (["show", "mine", "lineage"], 2, "give a record's id"),
        (["show", "mine", "records", "--limit", "0"], 2, "--limit"),
        (["check"], 2, "name a recipe"),
        (["check", "nowhere.yaml"], 2, "cannot read the recipe"),
        (["run", "nowhere.yaml"], 2, "cannot read the recipe"),
        (["run", "{recipe}", "--name", "latest"], 2, "cannot be called `latest`"),
        (["run", "{recipe}", "--name", "a/b"], 2, "cannot be called `a/b`"),
        (["run", "{recipe}", "--set", "stages.read.paths=[nowhere]"], 2, "no such file or folder"),
        (["status", "nobody"], 3, "no run is called nobody"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_asked_for_json_every_error_is_one_document(done: Project, command: list[str], code: int, words: str) -> None:
    arguments = [part.format(recipe=done.folder / "recipe.yaml") for part in command]
    said = done.run(*arguments, "--json", code=code)
    error = json.loads(said.stdout)
    told = json.dumps(error)
    assert words in told or words in error.get("message", "")
    if "problems" not in error:
        assert error["exit"] == code and error["message"].splitlines()[0] in said.stderr.replace("Error: ", "")
    assert "Traceback" not in said.stderr


def test_asked_for_json_every_answer_is_one_document(done: Project) -> None:
    [fact, *_] = json.loads(done.run("show", "mine", "records", "--stage", "facts", "--json").stdout)
    for command in (
        ["show", "--json"],
        ["show", "mine", "records", "--json"],
        ["show", "mine", "rejects", "--json"],
        ["show", "mine", "report", "--json"],
        ["show", "mine", "lineage", fact["id"], "--json"],
        ["status", "--json"],
        ["status", "mine", "--json"],
        ["run", str(done.folder / "recipe.yaml"), "--json"],
        ["check", str(done.folder / "recipe.yaml"), "--json"],
    ):
        assert json.loads(done.run(*command).stdout)


def test_what_is_shown_to_people(done: Project) -> None:
    status = done.run("status", "mine").stdout
    assert "finished" in status and "calls" in status and "folder" in status
    records = done.run("show", "mine", "records", "--stage", "read", "--limit", "2").stdout
    assert "read: 4 records, the first 2" in records and records.count("\n  document ") == 2
    rejects = done.run("show", "mine", "rejects", "--limit", "1").stdout
    assert "more (--limit)" in rejects
    assert "no rejects" in done.run("show", "mine", "rejects", "--stage", "read").stdout
    again = done.run("run", done.folder / "recipe.yaml")
    assert "nothing was done again" in again.stdout and not again.stderr
    assert "ok  " in done.run("doctor").stdout
    assert "installed" in done.run("models", "list").stdout


def test_a_reader_that_leaves_is_no_error(done: Project) -> None:
    with subprocess.Popen(
        done.command("show", "mine", "records", "--stage", "facts", "--limit", "1000", "--json"),
        env={**os.environ, "GRISTMILL_WORKSPACE": str(done.workspace)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_progress_is_plain_lines_elsewhere_and_nothing_when_quiet(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    said = project.run("run", project.folder / "recipe.yaml")
    assert "\nfacts: " in said.stderr and " records in" in said.stderr and "cloze: " in said.stderr
    assert "\x1b" not in said.stderr + said.stdout and "\r" not in said.stderr
    assert said.stdout.count("report ") == 1
    project.recipe(fake.url, seed=4)
    assert project.run("run", project.folder / "recipe.yaml", "--quiet").stderr == ""


def test_a_run_goes_by_id_name_and_latest(project: Project, fake: FakeServer) -> None:
    assert json.loads(project.run("status", "--json").stdout) == []
    assert "no runs yet" in project.run("status").stdout
    project.recipe(fake.url, seed=1)
    first = project.go("--name", "mine")
    project.recipe(fake.url, seed=2)
    second = project.go("--name", "mine")  # the name means this one from now on
    assert first["run"] != second["run"]
    for name, run in (("mine", second), ("latest", second), (first["run"], first)):
        assert json.loads(project.run("status", name, "--json").stdout)["id"] == run["run"]
    assert len(json.loads(project.run("status", "--json").stdout)) == 2
    project.recipe(fake.url, seed=1)
    assert project.go("--name", "old")["state"] == "shown"
    assert json.loads(project.run("status", "old", "--json").stdout)["id"] == first["run"]
    (Path(first["folder"]) / "report.html").unlink()
    project.go()
    assert "old" in Path(project.run("show", "old", "report").stdout.strip()).read_text()


def test_two_runs_share_a_workspace_at_once(project: Project, fake: FakeServer) -> None:
    recipes = []
    for seed in (1, 2):
        path = project.recipe(fake.url, seed=seed)
        recipes.append(path.rename(path.with_name(f"r{seed}.yaml")))
    both = [
        subprocess.Popen(
            project.command("run", path, "--json"),
            env={**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for path in recipes
    ]
    for process in both:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert json.loads(out)["state"] == "finished"


def test_a_store_of_a_newer_version_is_refused(project: Project, fake: FakeServer) -> None:
    import sqlite3

    project.recipe(fake.url)
    project.workspace.mkdir()
    with sqlite3.connect(project.workspace / "store.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    assert json.loads(project.run("run", project.folder / "recipe.yaml", "--json", code=2).stdout)["exit"] == 2


_WITHOUT = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""


def test_a_missing_extra_is_named_with_the_line_that_installs_it(project: Project, fake: FakeServer) -> None:
    site = project.write("site/sitecustomize.py", _WITHOUT.replace("{names}", "{'torch', 'peft', 'xllamacpp'}")).parent
    tune = {"kind": "train.sft", "model": "student"}
    student = {"provider": "local", "model": "smollm2-135m-instruct"}
    writer = {"provider": "openai", "base_url": fake.url, "model": "m"}
    project.recipe(fake.url, stages={"tune": tune}, models={"writer": writer, "student": student})
    said = project.run("check", project.folder / "recipe.yaml", code=2, PYTHONPATH=str(site)).stderr
    assert "not installed: peft, torch" in said and "pip install 'gristmill[train]'" in said
    found = json.loads(project.run("doctor", "--json", code=2, PYTHONPATH=str(site)).stdout)
    [local] = [f for f in found if f["what"] == "local"]
    assert not local["ok"] and "gristmill[local]" in local["do"]
    assert "miss  local" in project.run("doctor", code=2, PYTHONPATH=str(site)).stdout


def test_the_package_runs_as_a_module_and_every_verb_has_help(done: Project) -> None:
    verbs = ["init", "check", "run", "status", "show", "stop", "serve", "chat", "export", "models", "doctor"]
    told = subprocess.run([sys.executable, "-m", "gristmill", "--help"], capture_output=True, text=True).stdout
    assert all(f"  {verb} " in told for verb in verbs)
    assert "..." not in told.partition("Commands:")[2]  # each verb's one line is whole
