"""Disks that fill up and folders that cannot be written: one clear message, nothing lost, and it goes on afterwards."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from tests.fakes.fixtures import FakeServer, fake_server
from tests.flows.attempt import answered, attempt, repeated
from tests.runs.project import PLACES, Project

CONCURRENCY = 4
LIBC = ctypes.CDLL(None)
DROP, MAY_WRITE_EVERYWHERE = 24, (1, 2)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


@pytest.fixture
def project(tmp_path: Path, fake: FakeServer) -> Project:
    fake.reset()
    project = Project(tmp_path)
    project.add(*PLACES)
    project.recipe(fake.url)
    return project


def go(project: Project, *, workspace: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`gristmill run` by someone who may not write everywhere: root gives up that right."""

    def give_up() -> None:
        for capability in MAY_WRITE_EVERYWHERE:
            LIBC.prctl(DROP, capability)

    return subprocess.run(
        project.command("run", project.folder / "recipe.yaml", "--json"),
        env={**os.environ, "GRISTMILL_WORKSPACE": str(workspace or project.workspace)},
        capture_output=True,
        text=True,
        preexec_fn=give_up,
    )


def told(done: subprocess.CompletedProcess[str]) -> str:
    """What a person reads: a message and a hint, never a traceback or talk of a defect."""
    said = orjson.loads(done.stdout)
    text = f"{said.get('message') or said['error']} {said['hint']}"
    assert "Traceback" not in done.stderr and "defect" not in text, text
    return text


@pytest.mark.parametrize("left", [0, pytest.param(8_000, marks=pytest.mark.slow)])
def test_a_disk_that_fills_up_stops_the_run_with_what_it_has(project: Project, fake: FakeServer, left: int) -> None:
    """While answers come in, files may suddenly grow no longer, or only a little: what a full disk does, without one.
    The run says so even where not a line of its own can be written."""
    fake.reset(latency_ms=100)
    with attempt(project) as first:
        first.wait_until(lambda: answered(fake) >= 4)
        size = (project.workspace / "store.db-wal").stat().st_size if left else 0
        resource.prlimit(first.process.pid, resource.RLIMIT_FSIZE, (size + left, resource.RLIM_INFINITY))
        done = subprocess.CompletedProcess("", *first.end())
    assert done.returncode in (1, 2), done.stderr
    assert "Free" in told(done) and "disk" in told(done), told(done)
    before = answered(fake)
    outcome = project.go()
    assert outcome["state"] == "finished"
    assert answered(fake) > before, "it stopped before the end"
    assert repeated(fake) <= CONCURRENCY + CONCURRENCY // 2, "what was confirmed is there"
    assert project.rejects(outcome, "facts") == []


def test_a_workspace_below_a_file_is_refused_before_anything_is_asked(project: Project, fake: FakeServer) -> None:
    (project.folder / "taken").write_text("a file")
    refused = go(project, workspace=project.folder / "taken" / "ws")
    assert refused.returncode == 2, refused.stderr
    assert "taken" in told(refused)
    assert answered(fake) == 0


def test_a_folder_that_may_not_be_written_is_named(project: Project, fake: FakeServer) -> None:
    locked = project.folder / "locked"
    locked.mkdir(mode=0o555)
    refused = go(project, workspace=locked / "ws")
    assert refused.returncode == 2, refused.stderr
    assert "locked" in told(refused) and "ermission" in told(refused)
    assert answered(fake) == 0


@pytest.mark.slow
def test_a_workspace_that_became_unwritable_says_so_and_goes_on_when_it_is_not(
    project: Project, fake: FakeServer
) -> None:
    assert project.go()["state"] == "finished"
    project.write("documents/more.md", "# More\n\nThe mill of Orvale was built by Harm Dekker in 1811.")
    for path in (project.workspace, *project.workspace.iterdir()):
        path.chmod(0o555 if path.is_dir() else 0o444)
    refused = go(project)
    assert refused.returncode in (1, 2), refused.stderr
    assert "ermission" in told(refused)
    for path in (project.workspace, *project.workspace.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert project.go()["state"] == "finished"
    assert repeated(fake) == 0
