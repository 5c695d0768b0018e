"""The executor itself: when a stage stops, what comes twice, what is read again, and that memory does not grow."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from tests.runs.plugin import install, recipe
from tests.runs.project import Project, stage_bytes


class Milled(Project):
    """A project whose commands see the plug-in."""

    def run(self, *arguments: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        return super().run(*arguments, code=code, **{"PYTHONPATH": str(self.folder / "site"), **environment})


@pytest.fixture
def mill(tmp_path: Path) -> Milled:
    install(tmp_path / "site")
    return Milled(tmp_path)


@pytest.mark.parametrize(("bad", "most", "stops"), [(8, 0.95, True), (5, 0.95, False), (20, 1.0, False)])
def test_most_of_the_first_records_failing_stops_the_run_early(
    mill: Milled, bad: int, most: float, stops: bool
) -> None:
    recipe(mill, count=60, step={"do": dict.fromkeys(range(bad), "defect"), "max_failures": most})
    outcome = mill.go(code=1 if stops else 0)
    if stops:
        assert "of the first 10 records failed" in outcome["error"] and "not a number" in outcome["error"]
    else:
        assert outcome["dead_letters"] == bad


def test_what_comes_by_two_ways_is_done_once(mill: Milled) -> None:
    log = mill.folder / "log.txt"
    stages = {
        "make": {"kind": "mill.make"},
        "most": {"kind": "mill.pass", "do": "twice"},
        "work": {"kind": "mill.step", "needs": ["make", "most"], "log": str(log)},
    }
    mill.write("recipe.yaml", yaml.safe_dump({"name": "two-ways", "stages": stages}))
    work = mill.go()["funnel"]["work"]
    assert (work["taken"], work["given"], work["duplicates"]) == (57, 30, 27)
    assert len(log.read_text().split()) == 30


def test_outputs_are_in_input_order_whatever_their_number(mill: Milled) -> None:
    recipe(mill, count=2500)
    outcome = mill.go()
    rows = mill.records(outcome, "work")
    assert [json.loads(row["body"])["data"]["n"] for row in rows] == list(range(2500))
    assert all(len(row["digest"]) == 64 for row in rows)


def test_a_run_of_an_older_layout_is_shown_and_goes_on(mill: Milled) -> None:
    """Tables without digests, as the version before wrote them."""
    log = mill.folder / "log.txt"
    recipe(mill, step={"log": str(log)})
    outcome = mill.go()
    folder, want = Path(outcome["folder"]), stage_bytes(Path(outcome["folder"]))
    for stage in folder.glob("stages/*"):
        meta = json.loads((stage / "stage.json").read_text())
        (stage / "stage.json").write_text(json.dumps({**meta, "fingerprint": "of another layout"}))
        for name, column in (("records", "digest"), ("rejects", "key")):
            path = stage / f"{name}.parquet"
            pq.write_table(pq.read_table(path).drop_columns([column]), path)
    assert "30 records" in mill.run("show", "latest", "records", "--stage", "make").stdout
    (folder / "summary.json").unlink()
    assert mill.go()["state"] == "finished" and stage_bytes(folder) == want
    assert len(log.read_text().split()) == 30


_MEASURED = """
import sys
from pathlib import Path
from gristmill.runs.execute import execute
from gristmill.runs.plan import make_plan
from gristmill.runs.workspace import Workspace

outcome = execute(make_plan(Path(sys.argv[1])), Workspace(Path(sys.argv[2])))
assert outcome.state == "finished", outcome
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_number_of_records(mill: Milled) -> None:
    def peak(count: int) -> float:
        path = recipe(mill, count=count)
        command = [sys.executable, "-c", _MEASURED, str(path), str(mill.folder / f"ws-{count}")]
        environment = {**os.environ, "PYTHONPATH": str(mill.folder / "site")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
        return int(done.stdout) / 1024

    few, many = peak(4000), peak(40_000)
    assert few < 150 and many < 220, f"{few:.0f} MB for 4,000 records, {many:.0f} MB for 40,000"


def test_the_holder_of_a_run_is_named(mill: Milled) -> None:
    recipe(mill, whole={"do": "wait", "seconds": 20})
    command = mill.command("run", mill.folder / "recipe.yaml")
    environment = {**os.environ, "PYTHONPATH": str(mill.folder / "site"), "GRISTMILL_WORKSPACE": str(mill.workspace)}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            while "all: 30 records in" not in process.stderr.readline():
                assert process.poll() is None
            said = mill.run("run", mill.folder / "recipe.yaml", code=2).stderr
            assert f"process {process.pid} on {socket.gethostname()}, since 20" in said
            other = recipe(mill, count=31)  # another run, in the same workspace at the same time
            assert json.loads(mill.run("run", other, "--json").stdout)["state"] == "finished"
        finally:
            process.kill()


def test_a_folder_that_may_not_be_written_is_named(mill: Milled) -> None:
    recipe(mill)
    (mill.workspace).mkdir()
    (mill.workspace / "runs").write_text("a file where a folder should be")
    said: Any = json.loads(mill.run("run", mill.folder / "recipe.yaml", "--json", code=1).stdout)
    assert "cannot be written" in said["message"] and "permissions" in said["hint"]
