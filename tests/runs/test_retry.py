"""What failed for good: told at once, kept apart from its neighbours, and sent again when a person says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer
from tests.runs.project import Project, stage_bytes
from tests.runs.test_blame import Rows


@pytest.fixture
def lossy(project: Project, fake: FakeServer) -> dict[str, Any]:
    """A finished run in which the model refused every chunk of one document."""
    project.recipe(fake.url)
    fake.fresh(refuse="Orvale")
    return project.go("--name", "lossy")


def retried(project: Project, code: int = 0) -> dict[str, Any]:
    outcome: dict[str, Any] = json.loads(project.run("retry", "lossy", "--json", code=code).stdout)
    return outcome


def test_a_dead_letter_says_why_and_harms_nobody(project: Project, fake: FakeServer, lossy: dict[str, Any]) -> None:
    lost = [row for row in project.rejects(lossy, "facts") if row["status"] == "failed"]
    chunks = project.records(lossy, "chunks")
    assert lossy["state"] == "finished" and lossy["dead_letters"] == len(lost) > 0
    assert {row["id"] for row in lost} == {row["id"] for row in chunks if "Orvale" in row["body"]}
    assert {row["reason"] for row in lost} == {"HTTP 400"} and all(len(row["key"]) == 64 for row in lost)
    assert all(row["detail"] for row in lost)
    assert len(fake.stats()["answered"]) == len(chunks) - len(lost)
    assert max(fake.stats()["attempts"].values()) <= 2  # a server that refuses the form of JSON is asked for another
    said = project.run("run", project.folder / "recipe.yaml", "--quiet").stdout
    assert f"{len(lost)} records failed" in said and "gristmill retry" in said


def test_retry_sends_them_alone_and_what_follows_is_as_if_they_had_never_failed(
    project: Project, fake: FakeServer, lossy: dict[str, Any], tmp_path: Path
) -> None:
    (project.folder / "recipe.yaml").rename(project.folder / "elsewhere.yaml")  # the run's folder is enough
    fake.fresh()
    outcome = retried(project)
    assert outcome["run"] == lossy["run"] and outcome["state"] == "finished" and outcome["dead_letters"] == 0
    assert fake.stats()["calls"] == lossy["dead_letters"]
    (project.folder / "elsewhere.yaml").rename(project.folder / "recipe.yaml")
    undisturbed = project.go("--workspace", tmp_path / "other")
    assert stage_bytes(Path(outcome["folder"])) == stage_bytes(Path(undisturbed["folder"]))
    assert retried(project)["state"] == "shown"


def test_what_fails_again_stays_a_dead_letter(project: Project, fake: FakeServer, lossy: dict[str, Any]) -> None:
    before = stage_bytes(Path(lossy["folder"]))
    fake.fresh(refuse="Orvale")
    outcome = retried(project)
    assert outcome["state"] == "finished" and outcome["dead_letters"] == lossy["dead_letters"]
    assert sum(fake.stats()["attempts"].values()) == lossy["dead_letters"]
    assert stage_bytes(Path(outcome["folder"])) == before


def test_a_retry_that_is_killed_is_taken_up_by_the_next_one(project: Project, fake: FakeServer) -> None:
    slow = {"provider": "openai", "base_url": fake.url, "model": "slow", "concurrency": 1}
    project.recipe(fake.url, models={"writer": slow})
    fake.fresh(refuse="Orvale")
    first = project.go("--name", "lossy")
    fake.fresh(latency_ms=700)
    process = subprocess.Popen(
        project.command("retry", "lossy", "--quiet"),
        env={**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not fake.stats()["answered"]:
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    fake.reset(latency_ms=0)
    assert project.go()["state"] == "finished"  # as it was before, or further: never torn
    outcome = retried(project)
    assert outcome["run"] == first["run"] and outcome["dead_letters"] == 0
    assert len(fake.stats()["answered"]) <= first["dead_letters"]


def test_retry_sends_what_could_not_be_asked_too(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    fake.fresh(poison="Orvale")
    first = project.go("--name", "lossy", code=4)
    assert first["state"] == "incomplete" and first["dead_letters"] > 0
    fake.fresh()
    assert retried(project)["dead_letters"] == 0
    assert fake.stats()["calls"] == first["dead_letters"]


def test_a_run_whose_documents_changed_is_not_retried(
    project: Project, fake: FakeServer, lossy: dict[str, Any]
) -> None:
    project.add("Vashtin")
    said = project.run("retry", "lossy", code=2).stderr
    assert "inputs have changed" in said and "makes a new run" in said


def test_what_is_wrong_with_every_record_stops_the_run_at_once(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url, stages={"facts": {"max_failures": 1.0}})
    fake.fresh(status=401, words="Incorrect key.")
    outcome = project.go(code=4)
    assert outcome["state"] == "failed" and "Incorrect key." in outcome["error"] and outcome["hint"]
    assert sum(fake.stats()["attempts"].values()) <= 2 * 4  # those under way, a key read again included
    fake.fresh()
    assert project.go()["state"] == "finished"


@pytest.fixture
def stopped(tmp_path: Path, fake: FakeServer) -> Rows:
    """A run that stopped at too many failures, most of its rows not asked."""
    table = Rows(tmp_path / "table")
    table.rows(*(f"letter {n}" + " BAD" * (n in (3, 7)) for n in range(100)))
    table.ask(fake.url)
    fake.fresh(refuse="BAD")
    failed = table.go("--name", "lossy", code=4)
    assert "stage ask stopped: 2 of" in failed["error"]
    return table


def test_of_an_unfinished_run_retry_sends_what_failed_alone_and_says_what_goes_on(
    stopped: Rows, fake: FakeServer
) -> None:
    before = len(fake.stats()["answered"])
    fake.fresh()
    outcome = retried(stopped)
    assert fake.stats()["calls"] == 2
    assert outcome["state"] == "paused" and outcome["error"] is None
    assert "2 records sent again; nothing else was sent" in outcome["hint"] and "`gristmill run`" in outcome["hint"]
    assert outcome["hint"] in stopped.run("status", "lossy", COLUMNS="400").stdout
    said = stopped.run("retry", "lossy", "--quiet").stdout
    assert "nothing was sent" in said and f"has {100 - before - 2} records to do" in said
    assert fake.stats()["calls"] == 2
    assert stopped.go()["funnel"]["ask"]["given"] == 100
    assert fake.stats()["calls"] == 100 - before


def test_what_fails_again_in_an_unfinished_run_stops_it_as_before(stopped: Rows, fake: FakeServer) -> None:
    fake.fresh(refuse="BAD")
    outcome = retried(stopped, code=4)
    assert "stage ask stopped: 2 of" in outcome["error"]
    assert sum(fake.stats()["attempts"].values()) == 2
