"""A run that is stopped, killed, started twice, or not alone: nothing is lost, nothing torn, nothing paid again."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer, fake_server
from tests.flows.attempt import answered, attempt, repeated
from tests.runs.project import PLACES, Project, stage_bytes

from gristmill.core.store import open_store

CONCURRENCY = 4
LATENCY_MS = 120


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with fake_server(latency_ms=LATENCY_MS) as fake:
        yield fake


@pytest.fixture
def project(tmp_path: Path, fake: FakeServer) -> Project:
    fake.reset(latency_ms=LATENCY_MS)
    project = Project(tmp_path)
    project.add(*PLACES)
    project.recipe(fake.url)
    return project


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, fake: FakeServer) -> dict[str, bytes]:
    """What a run gives that nobody disturbs."""
    project = Project(tmp_path_factory.mktemp("undisturbed"))
    project.add(*PLACES)
    project.recipe(fake.url)
    fake.reset(latency_ms=0)
    return made(project.go())


def made(outcome: dict[str, Any]) -> dict[str, bytes]:
    """Everything the stages gave, but for the list of files: their places differ from project to project."""
    return {k: v for k, v in stage_bytes(Path(outcome["folder"])).items() if not k.startswith("stages/01-read.files")}


@pytest.mark.parametrize("sign", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_stops_a_run_cleanly_and_the_same_command_goes_on(
    undisturbed: dict[str, bytes], project: Project, fake: FakeServer, sign: signal.Signals
) -> None:
    with attempt(project) as first:
        first.wait_until(lambda: answered(fake) >= 6)
        first.process.send_signal(sign)
        code, out, errors = first.end()
    assert code == 130, errors
    assert json.loads(out)["state"] == "cancelled"
    assert "once more to stop at once" in errors
    done = answered(fake)
    assert done < len(PLACES) * 2, "it stopped before the end"
    outcome = project.go()
    assert outcome["state"] == "finished"
    assert repeated(fake) == 0, "what was under way was waited for and kept"
    assert made(outcome) == undisturbed


def test_a_run_started_twice_is_refused_and_names_who_holds_it(project: Project, fake: FakeServer) -> None:
    fake.reset(latency_ms=1500)
    with attempt(project) as first:
        first.wait_until(lambda: fake.stats()["calls"] >= 2)
        refused = json.loads(project.run("run", project.folder / "recipe.yaml", "--json", code=2).stdout)
        assert "is running already" in refused["message"]
        assert str(first.process.pid) in refused["message"]
        assert re.search(r"since \d{4}-\d\d-\d\d \d\d:\d\d", refused["message"])
        assert "gristmill stop" in refused["hint"]
        code, out, errors = first.end()
    assert code == 0, errors
    assert json.loads(out)["state"] == "finished"
    assert repeated(fake) == 0


@pytest.mark.slow
def test_two_runs_at_once_in_one_workspace_tear_nothing_and_ask_at_most_once_each(
    undisturbed: dict[str, bytes], project: Project, fake: FakeServer
) -> None:
    """The other run asks for the same facts and keeps more of them."""
    other = Project(project.folder / "other")
    other.add(*PLACES)
    other.recipe(fake.url, seed=4)
    with (
        attempt(project) as first,
        attempt(other, GRISTMILL_WORKSPACE=str(project.workspace)) as second,
    ):
        (code, out, errors), (other_code, other_out, other_errors) = first.end(), second.end()
    assert (code, other_code) == (0, 0), errors + other_errors
    assert json.loads(out)["folder"] != json.loads(other_out)["folder"]
    assert made(json.loads(out)) == undisturbed
    assert max(fake.stats()["answered"].values()) <= 2
    store = open_store(project.workspace / "store.db")
    calls = sum(store.spent(json.loads(text)["run"]).calls for text in (out, other_out))
    store.close()
    assert calls == answered(fake), "each is charged for what it asked"


@pytest.mark.slow
def test_a_second_signal_stops_at_once_and_costs_at_most_what_was_in_flight(
    undisturbed: dict[str, bytes], project: Project, fake: FakeServer
) -> None:
    fake.reset(latency_ms=4000)  # it goes on answering those who left: the last test here that uses it
    with attempt(project) as first:
        first.wait_until(lambda: fake.stats()["calls"] >= CONCURRENCY)
        first.process.send_signal(signal.SIGINT)
        first.hears("stopping after the answers under way")
        first.process.send_signal(signal.SIGINT)
        assert first.end(seconds=3)[0] == 130, "it did not wait for the answers"
    asked = set(fake.stats()["attempts"])
    fake.reset(latency_ms=0)
    outcome = project.go()
    assert len(asked & set(fake.stats()["answered"])) <= CONCURRENCY
    assert made(outcome) == undisturbed


@pytest.mark.slow
def test_killed_under_load_everything_confirmed_is_there(tmp_path: Path) -> None:
    """Sixty-four at once, killed three times. What the server answered and the store lacks was in flight, or had come
    and was on its way to disk: at most half as many."""
    concurrency, kills = 64, 3
    most = concurrency + concurrency // 2
    with fake_server(latency_ms=20) as fake:
        project = Project(tmp_path)
        for number in range(60):
            lines = (f"The {word} of Orvale {number} is {number + 7} metres deep." for word in ("well", "moat", "lake"))
            project.write(f"documents/{number}.md", "\n\n".join([f"# Orvale {number}", *lines]))
        writer = {"provider": "openai", "base_url": fake.url, "model": "m", "concurrency": concurrency}
        project.recipe(fake.url, models={"writer": writer}, stages={"chunks": {"tokens": 20}})
        for kill in range(kills):
            with attempt(project) as running:
                running.wait_until(lambda least=30 * (kill + 1): answered(fake) >= least)
                os.kill(running.process.pid, signal.SIGKILL)
                running.process.wait()
            lost = len(fake.stats()["answered"]) - kept_answers(project)
            assert 0 <= lost <= most
        assert project.go()["state"] == "finished"
        assert kept_answers(project) == len(fake.stats()["answered"])
        assert repeated(fake) <= most * kills


def kept_answers(project: Project) -> int:
    connection = sqlite3.connect(project.workspace / "store.db")
    try:
        return int(connection.execute("SELECT count(*) FROM responses").fetchone()[0])
    finally:
        connection.close()
