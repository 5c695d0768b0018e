"""The system clock steps by hours while a run works, and between its attempts: nothing hangs, nothing expires.

The processes see a wall clock that is off by what a file says; the monotonic clock is not touched, as in the world.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.fixtures import FakeServer, fake_server
from tests.flows.attempt import answered, attempt, repeated
from tests.runs.project import PLACES, Project

HOURS = 3600

FALSE_CLOCK = """
import os, time
_time, _time_ns = time.time, time.time_ns

def _off():
    with open(os.path.join(os.path.dirname(__file__), "off")) as file:
        return int(file.read() or 0)

time.time = lambda: _time() + _off()
time.time_ns = lambda: _time_ns() + _off() * 10**9
"""


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with fake_server(latency_ms=150) as fake:
        yield fake


@pytest.fixture
def project(tmp_path: Path, fake: FakeServer) -> Project:
    fake.reset(latency_ms=150)
    project = Project(tmp_path)
    project.add(*PLACES)
    project.recipe(fake.url, budget={"seconds": 600})
    return project


@pytest.fixture
def clock(project: Project, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Put the clock off by so many seconds."""
    project.write("clock/sitecustomize.py", FALSE_CLOCK)
    off = project.write("clock/off", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(off.parent), os.environ.get("PYTHONPATH", "")]))

    def step(seconds: int) -> None:
        fresh = off.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.rename(off)

    return step


SOME_HOURS = pytest.mark.parametrize("hours", [5, pytest.param(-5, marks=pytest.mark.slow)])


@SOME_HOURS
def test_a_step_while_it_works_changes_nothing(
    project: Project, fake: FakeServer, clock: Callable[[int], None], hours: int
) -> None:
    with attempt(project) as running:
        running.wait_until(lambda: answered(fake) >= 5)
        clock(hours * HOURS)
        began = time.monotonic()
        code, out, errors = running.end(seconds=30)
    assert code == 0, errors + out
    assert json.loads(out)["state"] == "finished"
    assert time.monotonic() - began < 25
    assert repeated(fake) == 0


@SOME_HOURS
def test_a_step_between_two_attempts_expires_no_budget_and_repeats_nothing(
    project: Project, fake: FakeServer, clock: Callable[[int], None], hours: int
) -> None:
    with attempt(project) as first:
        first.wait_until(lambda: answered(fake) >= 5)
        clock(hours * HOURS)
        first.process.send_signal(signal.SIGTERM)
        assert first.end()[0] == 130
    clock(-2 * hours * HOURS)
    outcome = project.go()
    assert outcome["state"] == "finished", outcome
    assert repeated(fake) == 0
    assert project.go()["state"] == "shown"
