"""A real MLflow server, of its own process and environment: what reaches it, and what its death does to a run."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import pytest
from tests.contracts.test_extras import uv
from tests.runs.project import Project
from tests.runs.test_sinks import check_mlflow, go, plugin, warnings

from gristmill.core.errors import ConfigError

pytestmark = pytest.mark.slow
__all__ = ["plugin"]  # a fixture


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole of MLflow, server included, of the client's version: ours is without it."""
    folder = tmp_path_factory.mktemp("mlflow") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    uv("pip", "install", "--python", folder / "bin" / "python", f"mlflow=={version('mlflow-skinny')}")
    return folder / "bin"


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def server(programs: Path, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """As docs/training/watching.md starts it: SQLite, artifacts beside it, this machine alone."""
    store = [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        folder / "artifacts",
    ]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    path = f"{programs}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as said:
        process = subprocess.Popen(
            [programs / "mlflow", "server", *store, *where],
            stdout=said,
            stderr=said,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    try:
        wait(f"http://127.0.0.1:{port}/health", process, folder / "server.log")
        yield process
    finally:
        end(process)


def wait(address: str, process: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(address, timeout=2).close()
            return
        time.sleep(0.3)
    raise AssertionError(said.read_text())


def end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_server_holds_what_the_run_said_and_its_death_does_not_hurt_the_run(
    project: Project, programs: Path, port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    address = f"http://127.0.0.1:{port}"
    sinks = {"mlflow": {"uri": address, "experiment": "mills"}}
    stops = {"stop_at": 500, "steps": 1000, "pause": 0.005}
    with server(programs, tmp_path, port) as process:
        assert go(project, sinks, stop_at=25).state == "cancelled"
        outcome = go(project, sinks, stop_at=25)
        assert outcome.state == "finished" and warnings(outcome) == []
        check_mlflow(address, outcome)
        hurt = go(project, sinks, lambda event: end(process) if event.get("step") == 200 else None, **stops)
        assert hurt.state == "cancelled"
        [said] = warnings(hurt)
        assert said.startswith("the sink mlflow failed, and the run goes on without it")
        with pytest.raises(ConfigError, match="cannot be reached"):
            go(project, sinks, **stops)
    with server(programs, tmp_path, port):
        mended = go(project, sinks, **stops)
        assert mended.folder == hurt.folder and mended.state == "finished" and warnings(mended) == [said]
        run = (mended.folder / "sinks/mlflow/run_id").read_text()
        steps = [m.step for m in MlflowClient(tracking_uri=address).get_metric_history(run, "tune/loss")]
        assert sorted(steps) == list(range(1, 1001))
