"""The terminal door, as a person uses it: what is said, what is printed for programs, and the exit code."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

from tests.fakes.fixtures import FakeServer
from tests.runs.project import Project


def test_show_leads_from_a_sample_back_to_page_prompt_and_answer(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    outcome = project.go("--name", "mine")
    funnel = project.run("show", "mine").stdout
    assert "facts" in funnel and "dropped because" in funnel
    facts = json.loads(project.run("show", "mine", "records", "--stage", "facts", "--json").stdout)
    data = json.loads(project.run("show", "mine", "lineage", facts[0]["id"], "--json").stdout)
    assert data["back"]["origin"]["prompt"].startswith("facts@")
    chain = data["back"]
    types = [chain["type"]]
    while chain["parents"]:
        [chain] = chain["parents"]
        types.append(chain["type"])
    assert types == ["fact", "chunk", "document", "file"]
    call = data["back"]["calls"][0]
    assert call["request"]["messages"] and call["reply"]["text"]
    told = project.run("show", "latest", "lineage", facts[0]["id"][:8]).stdout
    assert "documents/" in told and "facts@" in told
    rejects = project.run("show", "mine", "rejects").stdout
    assert "exact duplicate" in rejects
    assert Path(project.run("show", "mine", "report").stdout.strip()).is_file()
    assert outcome["run"] in project.run("status").stdout
    assert "finished" in project.run("status", "mine").stdout


def test_what_is_not_there_is_said_with_what_is(project: Project, fake: FakeServer) -> None:
    assert "no runs in" in project.run("show", code=3).stderr
    project.recipe(fake.url)
    project.go()
    assert "Runs here: little" in project.run("show", "nobody", code=3).stderr
    assert "Finished: read.files" in project.run("show", "latest", "records", "--stage", "no", code=3).stderr
    assert "no record's id begins" in project.run("show", "latest", "lineage", "zzzz", code=3).stderr
    project.run("show", "latest", "lineage", code=2)
    assert "has not finished a training stage" in project.run("serve", code=3).stderr


def test_check_prints_the_plan_or_every_problem(project: Project, fake: FakeServer) -> None:
    recipe = project.recipe(fake.url)
    assert "is sound" in project.run("check", recipe).stdout
    plan = json.loads(project.run("check", recipe, "--json").stdout)
    assert plan["ok"] and plan["stages"][0]["stage"] == "read.files"
    bad = json.loads(project.run("check", recipe, "--set", "stages.chunks.tokenz=1", "--json", code=2).stdout)
    assert not bad["ok"] and "tokenz" in bad["problems"][0]["message"]
    assert json.loads(project.run("check", "--schema").stdout)["properties"]["stages"]
    project.run("check", code=2)


def test_export_writes_what_other_tools_read(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    project.go()
    project.run("export", "latest", "--format", "openai", "--to", project.folder / "out")
    lines = next((project.folder / "out/openai").glob("*.jsonl")).read_text().splitlines()
    assert {m["role"] for m in json.loads(lines[0])["messages"]} >= {"user", "assistant"}
    assert (
        "not empty"
        in project.run("export", "latest", "--format", "text", "--to", project.folder / "out", code=2).stderr
    )
    assert "no trained model" in project.run("export", "latest", "--format", "hf", "--to", "x", code=3).stderr


def test_init_makes_a_project_whose_placeholders_block_it(project: Project) -> None:
    folder = project.folder / "new"
    project.run("init", folder)
    assert {p.name for p in folder.iterdir()} == {"recipe.yaml", "documents", ".env.example", ".gitignore"}
    (folder / "documents/a.txt").write_text("The mill of Orvale was built in 1822.")
    said = project.run("check", folder / "recipe.yaml", LLM_URL="http://127.0.0.1:1/v1", LLM_KEY="k", code=2).stderr
    assert "still a placeholder" in said and said.count("recipe.yaml:") == 1
    project.run(
        *("check", folder / "recipe.yaml", "--set", "models.writer.model=m"),
        LLM_URL="http://127.0.0.1:1/v1",
        LLM_KEY="k",
    )
    project.run("init", folder, code=2)


def test_the_machine_and_the_catalogue_are_shown(project: Project) -> None:
    assert json.loads(project.run("models", "list", "--json").stdout)[0]["name"] == "smollm2-135m-instruct"
    assert "no model named nothing" in project.run("models", "get", "nothing", code=2).stderr
    found = json.loads(project.run("doctor", "--json").stdout)
    assert {f["what"] for f in found} >= {"python", "memory", "train", "smollm2-135m-instruct"}
    assert project.run("--version").stdout.strip()


def test_progress_survives_a_narrow_terminal(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url)
    main, side = pty.openpty()
    process = subprocess.Popen(
        project.command("run", project.folder / "recipe.yaml"),
        env={**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace), "COLUMNS": "28", "TERM": "xterm"},
        stdout=subprocess.DEVNULL,
        stderr=side,
    )
    os.close(side)
    said = b""
    while True:
        try:
            piece = os.read(main, 4096)
        except OSError:
            break
        if not piece:
            break
        said += piece
    os.close(main)
    assert process.wait(timeout=60) == 0
    assert b"facts" in said and b"Traceback" not in said


def test_no_secret_reaches_disk_or_argv(project: Project, fake: FakeServer) -> None:
    canary = "sk-canary-3f9a7e"
    writer = {"provider": "openai", "base_url": "env:LLM_URL", "api_key": "env:LLM_KEY", "model": "m"}
    project.recipe(fake.url, models={"writer": writer})
    project.run("run", project.folder / "recipe.yaml", LLM_URL=fake.url, LLM_KEY=canary)
    assert fake.stats()["calls"] > 0
    found = [p for p in project.workspace.rglob("*") if p.is_file() and canary.encode() in p.read_bytes()]
    assert not found
