"""An exam through the real executor and the command line, against a model that is a fake server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer, fake_server
from tests.runs.project import PLACES, Project

QUESTIONS = [
    {"question": f"Who built the lighthouse of {place}?", "answers": ["Harm Dekker"], "document": f"{place.lower()}.md"}
    for place in PLACES[:4]
] + [
    {"question": "How deep is the well of Orvale?", "answers": ["40 metres"], "document": "orvale.md", "kind": "number"}
]


@pytest.fixture(scope="module")
def served() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


@pytest.fixture(scope="module")
def examined(served: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any]]:
    project = Project(tmp_path_factory.mktemp("exam"))
    project.add(*PLACES[:4])
    project.write("exam.jsonl", "\n".join(map(json.dumps, QUESTIONS)))
    exam = {"kind": "evaluate.exam", "needs": ["chunks", "clean"], "models": ["writer"], "open_book": ["writer"]}
    exam |= {"tasks": "exam.jsonl", "max_tokens": 40}
    project.recipe(served.url, stages={"exam": exam})
    return project, project.go("--name", "examined")


def report(project: Project) -> dict[str, Any]:
    [found] = json.loads(project.run("show", "examined", "records", "--stage", "exam", "--json").stdout)
    data: dict[str, Any] = found["data"]
    return data


def test_the_report_says_how_every_arm_did(examined: tuple[Project, dict[str, Any]]) -> None:
    project, outcome = examined
    assert outcome["state"] == "finished" and outcome["funnel"]["exam.answer"]["given"] == 5 * (1 + 2 * 2)
    data = report(project)
    assert data["n"] == 5 and data["source"] == "exam.jsonl" and data["order"] == ["writer", "writer, open book"]
    for name, book in (("writer", "closed"), ("writer, open book", "open")):
        arm = data["arms"][name]
        assert arm["n"] == 5 and arm["book"] == book and not arm["tuned"]
        assert 0 <= arm["low"] <= arm["accuracy"] <= arm["high"] <= 1
        assert arm["kinds"]["short"]["n"] == 4 and arm["documents"]["orvale.md"]["n"] == 2
        assert arm["right"] == sum(q["arms"][name]["value"] == 1 for q in data["questions"])
    [comparison] = data["comparisons"]
    assert comparison["arm"] == "writer, open book" and comparison["against"] == "writer"


def test_page_and_table_show_it(examined: tuple[Project, dict[str, Any]]) -> None:
    project, outcome = examined
    data = report(project)
    page = (Path(outcome["folder"]) / "report.html").read_text()
    assert "Exam: exam" in page and "What they answered" in page and page.count("whisker") >= 2
    assert all(question["question"] in page for question in QUESTIONS)
    table = project.run("show", "examined").stdout
    for name, arm in data["arms"].items():
        assert f"{arm['right']} of 5" in page
        [line] = [line for line in table.splitlines() if line.startswith(f"{name}  ")]
        assert f"{arm['right']}/5" in line and f"{arm['low']:.1%} to {arm['high']:.1%}" in line


def test_a_question_leads_back_to_what_taught_it_and_on_to_its_scores(examined: tuple[Project, dict[str, Any]]) -> None:
    project, _ = examined
    asked = json.loads(project.run("show", "examined", "records", "--stage", "exam.tasks", "--json").stdout)
    assert len(asked) == 5
    task = next(t for t in asked if t["question"].startswith("Who built the lighthouse of Orvale"))
    data = json.loads(project.run("show", "examined", "lineage", task["id"], "--json").stdout)
    [scored] = [question for question in data["exam"] if question["id"] == task["id"]]
    assert set(scored["scores"]) == {"writer", "writer, open book"}
    told = project.run("show", "examined", "lineage", task["id"]).stdout
    assert task["question"] in told and "made from it" in told
    facts = json.loads(project.run("show", "examined", "records", "--stage", "facts", "--limit", "99", "--json").stdout)
    built = next(f for f in facts if "Harm Dekker" in f["quote"]["text"])
    said = project.run("show", "examined", "lineage", built["id"]).stdout
    assert "exam questions about it" in said and "Who built the lighthouse" in said


def test_again_it_costs_nothing_and_a_new_question_only_itself(
    examined: tuple[Project, dict[str, Any]], served: FakeServer
) -> None:
    project, _ = examined
    served.reset()
    more = {"question": "What do the bakers of Undrey sell?", "answers": ["rye bread"], "document": "undrey.md"}
    project.write("exam.jsonl", "\n".join(map(json.dumps, [*QUESTIONS, more])))
    assert project.go()["state"] == "finished"
    assert served.stats()["calls"] == 2
