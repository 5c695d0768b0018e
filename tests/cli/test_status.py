"""How far a run is, seen from another process: while it runs, after it paused, after it was killed, when it is done."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer
from tests.runs.project import PLACES, Project

from gristmill.core.store import Charge, Spent, open_store
from gristmill.llm.budget import KILLED
from gristmill.runs.figures import amount, money, span
from gristmill.runs.folder import RunFolder
from gristmill.runs.status import Progress, Watch
from gristmill.runs.workspace import Workspace

PRICE = {"input": 100.0, "output": 400.0}


def recipe(project: Project, url: str, **changes: Any) -> Path:
    writer = {"provider": "openai", "base_url": url, "model": "m", "attempts": 3, "concurrency": 2, "price": PRICE}
    return project.recipe(url, models={"writer": writer}, **changes)


@contextmanager
def under_way(project: Project, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run in its own process, from the moment it has been answered."""
    process = subprocess.Popen(
        project.command("run", path, "--quiet"),
        env={**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace)},
        stdout=subprocess.DEVNULL,
    )
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until and not list(project.workspace.glob("runs/*/manifest.json")):
            time.sleep(0.05)
        while time.monotonic() < until and not ((seen := state(project))["rate"] and seen["rate"]["answers"]):
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def state(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(project.run("status", "latest", "--json").stdout)
    return found


def test_a_run_is_watched_from_another_process(project: Project, fake: FakeServer) -> None:
    project.add(*PLACES)
    fake.reset(latency_ms=700)
    with under_way(project, recipe(project, fake.url, budget={"usd": 50, "calls": 500})) as process:
        seen = state(project)
        assert seen["state"] == "running" and seen["stage"] == "facts" and seen["budget"]["usd"]["limit"] == 50
        [line] = seen["lines"]
        assert line["limit"] == 2 and line["why"] and line["roles"] == ["writer"] and line["in_flight"] <= 2
        [facts] = [stage for stage in seen["stages"] if stage["name"] == "facts"]
        assert facts["state"] == "running" and facts["spent"]["usd"] > 0 and facts["left"] > 0
        assert seen["rate"]["answers"] > 0 and seen["spent"]["calls"] <= 500
        told = project.run("status", "latest").stdout
        assert "2 in flight" in told and "of $50.00" in told and "answers/s" in told and "facts about" in told
        watched = project.run("status", "--watch", "--json").stdout.splitlines()
        assert process.wait(60) == 0
    states = [json.loads(line) for line in watched]
    assert states[0]["state"] == "running" and states[-1]["state"] == "finished" and len(states) > 3
    calls = [s["spent"]["calls"] for s in states]
    assert calls == sorted(calls) and states[-1]["lines"] == [] and states[-1]["left"] is None
    assert states[-1]["spent"]["usd_per_sample"] == pytest.approx(
        states[-1]["spent"]["usd"] / states[-1]["stages"][-1]["given"]
    )
    ended = project.run("status", "--watch").stdout
    assert "finished" in ended and "a sample" in ended and "\x1b" not in ended


def test_paused_by_a_budget_and_killed(project: Project, fake: FakeServer) -> None:
    project.add(*PLACES)
    fake.reset(latency_ms=300)
    paused = project.run("run", recipe(project, fake.url, budget={"calls": 5}), code=7)
    assert "budget" in paused.stderr
    told = project.run("status", "latest").stdout
    assert "paused" in told and "5 calls of 5 calls" in told and "raise budget.calls" in told and "stopped" in told
    with under_way(project, recipe(project, fake.url)) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    seen = state(project)
    assert seen["state"] == "interrupted" and seen["spent"]["calls"] > 5 and not seen["budget"]
    assert (seen["lines"], seen["rate"], seen["left"]) == ([], None, None)
    assert {s["name"]: s["state"] for s in seen["stages"]}["chunks"] == "kept"
    assert "interrupted" in project.run("status").stdout


def test_what_killed_attempts_were_charged_has_a_line_of_its_own(project: Project, fake: FakeServer) -> None:
    project.add(PLACES[0])
    fake.reset()
    recipe(project, fake.url)
    run = project.go()["run"]
    assert KILLED not in project.run("show").stdout + project.run("status", "latest").stdout
    store = open_store(project.workspace / "store.db")
    asyncio.run(store.charge(Charge(run, KILLED, "", 10, 0, 400, nano_usd=9_000_000, answered=False)))
    store.close()
    seen = state(project)
    assert seen["stages"][-1]["name"] == KILLED and seen["stages"][-1]["spent"]["calls"] == 10
    for what in ("calls", "tokens", "usd"):
        assert sum(stage["spent"][what] for stage in seen["stages"]) == pytest.approx(seen["spent"][what])
    for told in (project.run("show").stdout, project.run("status", "latest").stdout):
        assert re.search(rf"^{KILLED} +10 +400 +\$0.0090", told, re.MULTILINE)


def test_a_run_that_starts_while_it_is_looked_at_shows_its_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds its folder just after that was looked at, and its first events are read as those of a dead one."""
    workspace = Workspace(tmp_path)
    folder = workspace.runs / "r"
    folder.mkdir(parents=True)
    manifest = {"id": "r", "name": "r", "started": "", "stages": [{"name": "ask", "kind": "k", "gives": []}]}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    events = [event("run.started", 1.0), event("stage.started", 1.0, stage="ask", kind="k", records=9)]
    events += [event("progress", n, stage="ask", done=n, total=9, spent={"calls": n}) for n in (2.0, 3.0)]
    (folder / "events.ndjson").write_text("".join(json.dumps(e) + "\n" for e in events))
    running = iter([False, True])
    monkeypatch.setattr(RunFolder, "running", lambda _: next(running))
    watch = Watch(workspace, "r")
    assert (early := watch.state())["state"] == "interrupted" and early["rate"] is None
    assert (later := watch.state())["state"] == "running" and later["rate"] is not None


def test_the_picture_fits_any_terminal(project: Project, fake: FakeServer) -> None:
    fake.reset(latency_ms=100)
    path = recipe(project, fake.url)
    for columns, command in ((140, ("run", path)), (64, ("status", "--watch")), (30, ("status", "--watch"))):
        main, side = pty.openpty()
        environment = {**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace), "TERM": "xterm"}
        environment |= {"COLUMNS": str(columns)}
        process = subprocess.Popen(project.command(*command), env=environment, stdout=side, stderr=side)
        os.close(side)
        said = b""
        with suppress(OSError):  # how a terminal ends
            while piece := os.read(main, 4096):
                said += piece
        os.close(main)
        assert process.wait(60) == 0
        assert b"facts" in said and b"Traceback" not in said and b"little" in said
        assert max(len(plain(line)) for line in said.splitlines()) <= columns or columns == 140  # paths end a run


def plain(line: bytes) -> str:
    return re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", line).decode().strip("\r")


def event(name: str, at: float, **data: Any) -> dict[str, Any]:
    return {"event": name, "time": at, **data}


def test_rates_are_those_of_the_last_minute_and_the_rest_follows_from_the_estimate() -> None:
    stages = [{"name": name, "kind": "k", "gives": ["Sample"]} for name in ("ask", "clean", "tune")]
    estimate = {"stages": {"clean": {"seconds": [2.0, 4.0]}, "tune": {"seconds": [60.0, 80.0]}}}
    progress = Progress(stages, {"usd": 2.0, "calls": None}, estimate)
    progress.feed(event("run.started", 1000.0, run="r", stages=[]))
    progress.feed(event("stage.started", 1000.0, stage="ask", kind="k", records=400))
    for second in range(121):  # 400 a minute first, then 60 a minute
        done = min(second, 60) + max(0, second - 60) * 2
        spent = {"calls": done, "tokens": done * 10}
        progress.feed(event("progress", 1000.0 + second, stage="ask", done=done, total=400, failed=1, spent=spent))
    ledger = {("ask", "writer"): Spent(calls=180, tokens_in=100, tokens_out=80, nano_usd=1_500_000_000)}
    seen = progress.state(1120.0, ledger)
    assert seen["rate"]["answers"] == pytest.approx(2.0, abs=0.05)
    assert seen["stages"][0]["left"] == pytest.approx(110, abs=3)
    assert seen["left"] == pytest.approx(110 + 3 + 70, abs=3)
    assert seen["budget"] == {"usd": {"limit": 2.0, "used": 1.5, "left": 0.5}}
    silent = progress.state(1180.0, ledger)  # nothing has come for a minute
    assert silent["rate"]["answers"] == pytest.approx(1.0, abs=0.05)
    progress.feed(event("run.paused", 1180.0))
    assert progress.state(1180.0, ledger)["stages"][0]["state"] == "stopped"
    progress.feed(event("run.started", 2000.0, run="r", stages=[]))  # gone on with: another attempt, its own time
    assert progress.state(2010.0, ledger)["seconds"] == pytest.approx(190.0)


def test_figures_as_people_read_them() -> None:
    assert [money(x) for x in (0, 0.00123, 0.05, 0.45, 1234.5)] == ["$0.00", "$0.0012", "$0.050", "$0.45", "$1,234.50"]
    assert [amount(x) for x in (0, 0.25, 7, 1204, 12345, 9_100_000)] == ["0", "0.25", "7", "1,204", "12.3k", "9.1M"]
    assert [span(x) for x in (0.44, 38, 100, 7800, 273600)] == ["0.4 s", "38 s", "1 min 40 s", "2 h 10 min", "3 d 4 h"]
