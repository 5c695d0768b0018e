"""What is said when something goes wrong: to whom, how often, and what to do about it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.fakes.fixtures import FakeServer
from tests.runs.project import Project


def test_dead_letters_and_the_log_say_what_happened_to_whom(project: Project, fake: FakeServer) -> None:
    fake.reset(refuse="Orvale", p500=0.3)
    project.recipe(
        fake.url, models={"writer": {"provider": "openai", "base_url": fake.url, "model": "m", "attempts": 20}}
    )
    run = project.go("--name", "mine", "--log-level", "debug")
    fake.reset(refuse="", p500=0)
    told = project.run("show", "mine", "rejects", "--stage", "facts").stdout
    rows = [row for row in project.rejects(run, "facts") if row["status"] == "failed"]
    assert rows and f"{len(rows)} failed: sent again by `gristmill retry {run['run']}`" in told and "failed" in told
    row = rows[0]["id"]
    [*_, last] = json.loads(project.run("show", "mine", "log", row[:8], "--json").stdout)
    assert (
        last["event"] == "dead letter" and last["row"] == row and last["stage"] == "facts" and last["level"] == "info"
    )
    lines = json.loads(project.run("show", "mine", "log", "--limit", "1000", "--json").stdout)
    assert {"retried", "answered"} <= {line["event"] for line in lines}
    assert all(line["run"] == run["run"] and line["stage"] == "facts" for line in lines if "row" in line)
    assert all(line["request"] for line in lines if line["event"] in ("retried", "answered"))
    shown = project.run("show", "mine", "log", row[:8]).stdout
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d info ", shown) and "dead letter" in shown
    page = (Path(run["folder"]) / "report.html").read_text()
    assert "failed</td>" in page and "<h2>Cost</h2>" in page
    assert "retry" in project.run("retry", "--help").stdout


def test_a_run_without_trouble_logs_nothing(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    run = project.go()
    assert not (Path(run["folder"]) / "log.ndjson").exists()
    assert project.run("show", "latest", "log").stdout.strip() == "nothing unusual happened"


def test_a_wrong_address_is_said_and_what_is_none_is_not(project: Project, fake: FakeServer) -> None:
    writer = {"provider": "openai", "base_url": "env:LLM_URL", "model": "m", "attempts": 1}
    recipe = project.recipe("", models={"writer": writer})
    said = project.run("run", recipe, code=4, LLM_URL="http://127.0.0.1:9/v1").stderr
    assert "cannot reach http://127.0.0.1:9/v1" in said
    for wrong in ("a-key-in-the-wrong-place", "http://me:walnut-harbour" + "@127.0.0.1:9/v1"):
        said = project.run("check", recipe, code=2, LLM_URL=wrong).stderr
        assert "env:LLM_URL does not hold an address" in said and "place" not in said and "walnut" not in said


def test_what_nobody_foresaw_is_one_line_and_a_file(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    run = project.go()
    (Path(run["folder"]) / "manifest.json").write_text("{")
    said = project.run("status", "latest", code=1).stderr
    assert "Traceback" not in said and said.startswith("error: ") and len(said.splitlines()) == 2
    kept = re.search(r"Its traceback is in (\S+\.txt);", said)
    assert kept is not None
    assert "Traceback" in Path(kept[1]).read_text()
    Path(kept[1]).unlink()
    told = json.loads(project.run("status", "latest", "--json", code=1).stdout)
    assert told["exit"] == 1 and "traceback" in told["hint"]
    Path(told["hint"].split(" is in ")[1].split(";")[0]).unlink()
    assert "Traceback" in project.run("status", "latest", code=1, GRISTMILL_DEBUG="1").stderr


def test_of_a_run_that_stopped_all_that_is_kept_is_told(project: Project, fake: FakeServer) -> None:
    fake.reset(refuse="Orvale")
    recipe = project.recipe(fake.url, stages={"facts": {"max_failures": 0.0}})
    said = project.run("run", recipe, "--quiet", code=4)
    run = json.loads(project.run("status", "latest", "--json").stdout)
    assert run["state"] == "failed" and run["stage"] == "facts"
    [facts] = [stage for stage in run["stages"] if stage["name"] == "facts"]
    assert facts["state"] == "stopped" and facts["failed"] > 0
    funnel = json.loads(project.run("show", "--json").stdout)["facts"]
    assert funnel["done"] >= sum(funnel["failed"].values()) > 0 and funnel["given"] == 0
    rows = json.loads(project.run("show", "latest", "rejects", "--stage", "facts", "--json").stdout)
    assert len(rows) == sum(funnel["failed"].values()) and {row["status"] for row in rows} == {"failed"}
    assert all("Orvale" in row["body"] and row["detail"] for row in rows)
    words = rows[0]["detail"][:40]
    for told in (said.stdout, project.run("show").stdout):
        assert "facts stopped: " in told and words in told and f"gristmill retry {run['id']}" in told
        assert "Then the same `gristmill run` goes on" in told
    assert words in project.run("show", "latest", "rejects").stdout
    [line] = [line for line in project.run("status").stdout.splitlines() if "failed" in line]
    assert " facts " in line
    assert " RUN " not in said.stdout + said.stderr
    fake.reset(refuse="")
    project.run("retry", "latest", "--quiet")
    project.run("run", recipe, "--quiet")
    assert "done" not in json.loads(project.run("show", "--json").stdout)["facts"]


def test_records_that_could_not_be_asked_are_told_too(project: Project, fake: FakeServer) -> None:
    fake.reset(p500=1.0)
    writer = {"provider": "openai", "base_url": fake.url, "model": "m", "attempts": 1}
    recipe = project.recipe(fake.url, models={"writer": writer}, stages={"facts": {"max_failures": 0.0}})
    said = project.run("run", recipe, "--quiet", code=4).stdout
    fake.reset(p500=0)
    rows = json.loads(project.run("show", "latest", "rejects", "--stage", "facts", "--json").stdout)
    assert rows and {row["status"] for row in rows} == {"unreachable"} and rows[0]["detail"] in said
    project.run("run", recipe, "--quiet")
    assert "unreachable" not in project.run("show", "latest", "rejects").stdout
