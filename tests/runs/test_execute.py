"""Running: what is done once is not done again, what changes is done, what fails is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer
from tests.runs.project import Project, stage_bytes

from gristmill.core.errors import StoreError
from gristmill.core.events import EventLog, read_events
from gristmill.llm.client import Client
from gristmill.runs.execute import execute
from gristmill.runs.plan import make_plan
from gristmill.runs.workspace import Workspace


def counts(outcome: dict[str, Any], stage: str) -> dict[str, Any]:
    found: dict[str, Any] = outcome["funnel"][stage]
    return found


def test_a_run_leaves_a_folder_that_a_stranger_can_read(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    outcome = project.go("--name", "first")
    folder = Path(outcome["folder"])
    assert outcome["state"] == "finished"
    assert {"recipe.yaml", "manifest.json", "events.ndjson", "report.html", "summary.json"} <= {
        p.name for p in folder.iterdir()
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["name"] == "first" and manifest["seed"] == 3 and manifest["attempts"][0]["hardware"]["cores"] >= 1
    assert any(ref.startswith("facts@") for ref in manifest["prompts"].values())
    page = (folder / "report.html").read_text()
    assert "Funnel" in page and "Samples beside their sources" in page and "http" not in page.split("<pre>")[0]
    assert counts(outcome, "facts")["taken"] == len(project.records(outcome, "chunks"))


def test_the_same_command_again_shows_the_run_and_asks_nobody(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    first = project.go()
    calls = fake.stats()["calls"]
    again = project.go()
    assert again["state"] == "shown" and again["run"] == first["run"]
    assert fake.stats()["calls"] == calls


def test_one_more_file_costs_only_that_file(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    project.go()
    fake.reset()
    project.add("Vashtin")
    project.write(
        "documents/a-first.md", "# Aardmoor\n\nAardmoor has three mills and one bell. The bell of Aardmoor is old."
    )
    outcome = project.go()
    new = [r for r in project.records(outcome, "chunks") if "Vashtin" in r["body"] or "Aardmoor" in r["body"]]
    assert fake.stats()["calls"] == len(new) > 0
    paths = [json.loads(r["body"])["path"] for r in project.records(outcome, "read")]
    assert paths == sorted(paths) and len(paths) == 6


def test_another_prompt_redoes_only_what_follows_it_and_going_back_is_free(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    first = project.go()
    fake.reset()
    mine = "@system\nBe exact.\n@user\n{{place}}\n{{sentences}}\n{{count}} {{language}}"
    project.write("mine.md", mine)
    project.recipe(fake.url, stages={"facts": {"prompts": {"facts": "mine.md"}}})
    second = project.go()
    assert fake.stats()["calls"] == counts(second, "facts")["taken"]
    reused = {e["stage"] for e in read_events(Path(second["folder"]) / "events.ndjson") if e["event"] == "stage.reused"}
    assert reused == {"read.files", "read", "chunks"}
    project.write("mine.md", mine + " now")
    third = project.go()
    assert third["run"] != second["run"]
    fake.reset()
    project.recipe(fake.url)
    assert project.go()["run"] == first["run"] and fake.stats()["calls"] == 0


def test_a_failed_model_stops_the_run_and_its_answers_are_kept(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url, stages={"facts": {"max_failures": 0.0}})
    fake.reset(p500=1.0)
    outcome = project.go(code=4)
    assert outcome["state"] == "failed" and "stage facts stopped" in outcome["error"]
    fake.reset(p500=0)
    assert project.go()["state"] == "finished"


def test_records_that_could_not_be_asked_are_asked_by_the_next_run(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    fake.reset(p500=0.75, seed=2)
    first = project.go(code=4)
    missing = counts(first, "facts")["unreachable"]
    assert first["state"] == "incomplete" and missing > 0
    assert {r["status"] for r in project.rejects(first, "facts")} >= {"unreachable"}
    asked = set(fake.stats()["answered"])
    fake.reset(p500=0)
    second = project.go()
    assert second["state"] == "finished" and counts(second, "facts")["unreachable"] == 0
    assert not asked & set(fake.stats()["answered"])  # nothing that was answered is asked again


@pytest.mark.parametrize("limit", ["calls", "tokens"])
def test_a_budget_pauses_the_run_without_overshoot_and_more_of_it_goes_on(
    project: Project, fake: FakeServer, limit: str
) -> None:
    most = {"calls": 3, "tokens": 2500}[limit]
    project.recipe(fake.url, budget={limit: most})
    paused = project.go(code=7)
    assert paused["state"] == "paused" and limit in paused["error"] and "raise" in paused["hint"].lower()
    spent = paused["spent"]
    assert {"calls": spent["calls"], "tokens": spent["tokens_in"] + spent["tokens_out"]}[limit] <= most
    asked = set(fake.stats()["answered"])
    project.recipe(fake.url, budget={limit: 10**6})
    done = project.go()
    assert done["state"] == "finished" and done["run"] == paused["run"]
    assert all(n == 1 for n in fake.stats()["answered"].values()) and asked < set(fake.stats()["answered"])


def test_what_is_under_way_when_a_budget_is_reached_is_kept(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url, budget={"calls": 3})
    fake.reset(latency_ms=300)
    paused = project.go(code=7)
    assert len(fake.stats()["answered"]) == paused["spent"]["calls"] == 3


def test_the_time_budget_counts_all_attempts(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url, budget={"seconds": 0.001})
    assert project.go(code=7)["state"] == "paused"
    project.recipe(fake.url, budget={"seconds": 300})
    assert project.go()["state"] == "finished"


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    fake.reset(latency_ms=400)
    process = subprocess.Popen(
        project.command("run", project.folder / "recipe.yaml"),
        env={**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: fake.stats()["calls"] > 0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "same command" in said
    answered = fake.stats()["answered"]
    fake.reset(latency_ms=0)
    assert project.go()["state"] == "finished"
    assert not set(answered) & set(fake.stats()["answered"])


def test_the_first_ctrl_c_is_the_first_however_the_run_was_stopped(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    fake.reset(latency_ms=2500)
    process = subprocess.Popen(
        project.command("run", project.folder / "recipe.yaml"),
        env={**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: fake.stats()["calls"] > 0)
    project.run("stop")
    time.sleep(0.3)  # it looks twenty times a second
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "once more to stop at once" in said
    assert json.loads(project.run("status", "latest", "--json").stdout)["state"] == "cancelled"
    assert len(fake.stats()["answered"]) == 4  # those under way were waited for


def test_every_ending_is_reached_whatever_the_others_do(
    project: Project, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(_: Client) -> None:
        raise StoreError("the disk is full")

    project.recipe(fake.url)
    monkeypatch.setattr(Client, "close", full)
    before = set(threading.enumerate())
    outcome = execute(make_plan(project.folder / "recipe.yaml"), Workspace(project.workspace))
    assert outcome.state == "failed" and "the disk is full" in str(outcome.error)
    left = {thread.name for thread in set(threading.enumerate()) - before}
    assert not [name for name in left if name.startswith("reader")]


def test_a_limit_that_moves_is_logged_once(project: Project, fake: FakeServer) -> None:
    writer = {"provider": "openai", "base_url": fake.url, "model": "m", "attempts": 20}
    project.recipe(fake.url, models={"writer": writer})
    fake.reset(p429=0.5, latency_ms=50)
    folder = Path(project.go()["folder"])
    fell = [line for line in read_events(folder / "log.ndjson") if line["event"] == "limit"]
    assert fell and all({"line", "limit", "why"} <= line.keys() for line in fell)


def test_stop_ends_a_run_in_another_terminal_and_a_second_start_is_refused(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    fake.reset(latency_ms=6000)
    environment = {**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace)}
    command = project.command("run", project.folder / "recipe.yaml", "--quiet")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: fake.stats()["calls"] > 0)
    refused = project.run("run", project.folder / "recipe.yaml", code=2)
    assert "is running already" in refused.stderr and str(process.pid) in refused.stderr
    assert json.loads(project.run("status", "latest", "--json").stdout)["state"] == "running"
    project.run("stop")
    assert process.wait(timeout=60) == 130
    assert json.loads(project.run("status", "latest", "--json").stdout)["state"] == "cancelled"
    project.run("stop", code=3)


def test_nothing_to_work_on_is_an_error_that_says_why(project: Project, fake: FakeServer) -> None:
    for path in (project.folder / "documents").iterdir():
        path.unlink()
    project.write("documents/noise.bin", "\x00\x01\x02" * 400)
    project.recipe(fake.url)
    outcome = project.go(code=3)
    assert outcome["state"] == "failed" and "gave nothing" in outcome["error"]
    assert "dropped" in outcome["hint"]


def test_a_renamed_file_is_another_input(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    first = project.go()
    (project.folder / "documents/orvale.md").rename(project.folder / "documents/renamed.md")
    assert project.go()["run"] != first["run"]


def test_two_workspaces_give_the_same_bytes(project: Project, fake: FakeServer, tmp_path: Path) -> None:
    project.recipe(fake.url)
    one = stage_bytes(Path(project.go()["folder"]))
    two = stage_bytes(Path(project.go("--workspace", tmp_path / "other")["folder"]))
    assert one == two and one


def test_a_torn_event_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "events.ndjson"
    log = EventLog(path)
    log.emit("a", x=1)
    log.close()
    with path.open("ab") as file:
        file.write(b'{"event": "to')
    assert [e["event"] for e in read_events(path)] == ["a"]
    log = EventLog(path)
    log.emit("b")
    log.close()
    assert [e["event"] for e in read_events(path)] == ["a", "b"]


def wait_for(what: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)
