"""Stages of another package: whatever they do wrong ends in a state, a message and a run that can go on."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.runs.plugin import install, recipe
from tests.runs.project import Project

from gristmill.core.events import read_events


class Milled(Project):
    """A project whose commands see the plug-in."""

    @property
    def path(self) -> str:
        return str(self.folder / "site")

    def run(self, *arguments: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        return super().run(*arguments, code=code, **{"PYTHONPATH": self.path, **environment})

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": self.path, "GRISTMILL_WORKSPACE": str(self.workspace)}


@pytest.fixture
def mill(tmp_path: Path) -> Milled:
    install(tmp_path / "site")
    return Milled(tmp_path)


def last_event(outcome: dict[str, Any]) -> dict[str, Any]:
    return list(read_events(Path(outcome["folder"]) / "events.ndjson"))[-1]


def test_a_plugin_is_a_kind_like_any_other(mill: Milled) -> None:
    recipe(mill)
    assert "mill.step" in mill.run("check", mill.folder / "recipe.yaml").stdout
    outcome = mill.go()
    assert outcome["funnel"]["work"]["more"]["seen"] == 30
    assert outcome["funnel"]["all"]["rejected"] == {"every tenth": 3} and outcome["funnel"]["all"]["given"] == 27
    assert "mill.step" in mill.run("check", "--schema").stdout


def test_a_plugin_may_not_redefine_a_kind(mill: Milled) -> None:
    stages = (mill.folder / "site/grist/stages.py").read_text()
    install(mill.folder / "other", name="thief", stages=stages)
    recipe(mill)
    both = os.pathsep.join([mill.path, str(mill.folder / "other")])
    said = mill.run("check", mill.folder / "recipe.yaml", code=2, PYTHONPATH=both).stderr
    assert "redefines the kind mill." in said


def test_a_few_failed_records_are_told_and_too_many_stop_the_run_for_good(mill: Milled) -> None:
    recipe(mill, step={"do": {3: "defect"}, "max_failures": 0.0})
    stopped = mill.go(code=1)
    assert "records failed; the last: ValueError" in stopped["error"] and "1 of" in stopped["error"]
    recipe(mill, step={"do": {3: "defect"}})
    outcome = mill.go()
    assert outcome["run"] == stopped["run"]  # how much may fail is no part of what a run is
    [failed] = mill.rejects(outcome, "work")
    assert failed["status"] == "failed" and failed["detail"] == "ValueError: not a number"
    log = mill.folder / "log.txt"
    recipe(mill, count=60, step={"do": dict.fromkeys(range(60), "defect"), "log": str(log)})
    first = mill.go(code=1)
    trace = last_event(first)["traceback"]
    assert "ValueError: not a number" in trace and "grist/work.py" in trace
    assert "Traceback" not in mill.run("run", mill.folder / "recipe.yaml", code=1).stderr
    asked = log.read_text().split()
    assert len(asked) == len(set(asked)) < 60  # what failed is remembered, and counts when the run goes on


def test_a_machine_that_has_no_more_is_no_fault_of_the_record(mill: Milled) -> None:
    recipe(mill, step={"do": {3: "memory", 4: "disk"}, "max_failures": 0.5})
    outcome = mill.go(code=4)
    assert outcome["state"] == "incomplete" and outcome["funnel"]["work"]["unreachable"] == 2
    said = mill.run("run", mill.folder / "recipe.yaml", code=4)
    assert "2 records could not be asked" in said.stdout and "the same command asks again" in said.stdout


@pytest.mark.parametrize(
    ("what", "code", "words"),
    [
        ("defect", 1, "looks like a defect"),
        ("disk", 1, "Free memory or disk space"),
        ("reject", 3, "three words"),
        ("ConfigError", 2, "Ask otherwise."),
        ("SandboxError", 5, "Ask otherwise."),
        ("CheckpointError", 6, "Ask otherwise."),
        ("BudgetError", 7, "Ask otherwise."),
        ("Cancelled", 130, "Ask otherwise."),
    ],
)
def test_every_end_of_a_pass_has_its_code_its_words_and_its_state(
    mill: Milled, what: str, code: int, words: str
) -> None:
    recipe(mill, whole={"do": what})
    outcome = mill.go(code=code)
    assert words in outcome["hint"]
    assert outcome["state"] == {7: "paused", 130: "cancelled"}.get(code, "failed")
    event = last_event(outcome)
    assert event["event"] == f"run.{outcome['state']}" and event["error"] == outcome["error"]
    assert ("grist/work.py" in event.get("traceback", "")) == (what in ("defect", "disk", "reject"))
    assert json.loads(mill.run("status", "latest", "--json").stdout)["state"] == outcome["state"]
    page = (Path(outcome["folder"]) / "report.html").read_text()
    assert outcome["error"].splitlines()[0] in page.replace("&#x27;", "'")


def test_time_runs_out_in_the_middle_of_a_pass(mill: Milled) -> None:
    recipe(mill, whole={"do": "wait"}, budget={"seconds": 1.0})
    outcome = mill.go(code=7)
    assert outcome["state"] == "paused" and "budget of 1 seconds" in outcome["error"]
    assert "budget.seconds" in outcome["hint"]


def test_a_disk_that_is_full_leaves_a_run_that_goes_on(mill: Milled) -> None:
    recipe(mill, count=3000)
    limit = 256 * 1024
    done = subprocess.run(
        mill.command("run", mill.folder / "recipe.yaml", "--json"),
        env=mill.environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    said = json.loads(done.stdout)
    assert "Free" in said["hint"]
    outcome = mill.go()
    assert outcome["state"] == "finished" and outcome["funnel"]["work"]["given"] == 3000


@contextmanager
def waiting(mill: Milled, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of its pass; it does not outlive the block."""
    with subprocess.Popen(
        command or mill.command("run", mill.folder / "recipe.yaml"),
        env=mill.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            while "all: 30 records in" not in process.stderr.readline():
                assert process.poll() is None
            yield process
        finally:
            process.kill()


def test_a_killed_run_is_interrupted_and_nothing_of_it_is_done_again(mill: Milled) -> None:
    log = mill.folder / "log.txt"
    recipe(mill, step={"log": str(log)}, whole={"do": "wait", "seconds": 2})
    with waiting(mill) as process:
        process.send_signal(signal.SIGKILL)
    state = json.loads(mill.run("status", "latest", "--json").stdout)
    assert state["state"] == "interrupted" and state["stage"] == "all" and state["error"] is None
    assert "milled" in mill.run("show", "latest").stdout
    assert "has no report yet" in mill.run("show", "latest", "report", code=3).stderr
    assert mill.go()["state"] == "finished"
    assert len(log.read_text().split()) == 30


_CALLER = """
import signal
import sys
from pathlib import Path
from gristmill.runs.execute import execute
from gristmill.runs.plan import make_plan
from gristmill.runs.workspace import Workspace

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may have it ignored

def say(event):
    if event["event"] == "stage.started":
        sys.stderr.write(f"{event['stage']}: {event['records']} records in\\n")
        sys.stderr.flush()

execute(make_plan(Path(sys.argv[1])), Workspace(Path(sys.argv[2])), listeners=(say,))
"""


def test_a_program_that_is_interrupted_leaves_a_run_that_says_so(mill: Milled) -> None:
    path = recipe(mill, whole={"do": "wait", "seconds": 20})
    with waiting(mill, sys.executable, "-c", _CALLER, str(path), str(mill.workspace)) as process:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=15)  # the pass heard it too
    assert process.returncode != 0 and "KeyboardInterrupt" in said
    assert json.loads(mill.run("status", "latest", "--json").stdout)["state"] == "interrupted"


def test_stopped_twice_it_ends_at_once(mill: Milled) -> None:
    recipe(mill, whole={"do": "wait", "seconds": 20})
    with waiting(mill) as process:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=15)
    assert process.returncode == 130 and "stopped half way" in said and "once more to stop at once" in said
