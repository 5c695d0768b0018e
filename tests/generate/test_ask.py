"""One prompt a row, by the front door: what is asked, what comes out, and what is refused before anything is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.fakes.fixtures import FakeServer, fake_server
from tests.runs.project import Project

from gristmill.generate.answer_fields import FieldSchema, answer_model

ROOT = Path(__file__).parents[2]
PEOPLE = [
    {"name": "Ada", "letter": "the boat is late again today", "age": 36, "tags": ["sea", "boat"], "note": None},
    {"name": "Bo", "letter": "the lamp at the quay is out {{name}}", "age": 7, "tags": [], "note": "urgent"},
    {"name": "Cy", "letter": "thank you for the warm soup", "age": 51, "tags": ["soup"]},
]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


class Table(Project):
    """A table of people and a recipe that asks about each."""

    def ask(self, url: str, *, code: int = 0, **config: Any) -> dict[str, Any]:
        self.set_up(url, **config)
        return self.go(code=code)

    def set_up(self, url: str, **config: Any) -> None:
        self.write("people.jsonl", b"".join(orjson.dumps(row) + b"\n" for row in PEOPLE).decode())
        stages = {
            **dict.fromkeys(("read", "chunks", "facts", "cloze", "clean")),
            "rows": {"kind": "ingest.rows", "paths": ["people.jsonl"]},
            "answers": {"kind": "generate.ask", "model": "writer", "max_failures": 1.0, **config},
        }
        self.recipe(url, stages=stages)

    def bodies(self, outcome: dict[str, Any], stage: str = "answers") -> list[dict[str, Any]]:
        return [orjson.loads(row["body"]) for row in self.records(outcome, stage)]

    def data(self, outcome: dict[str, Any]) -> list[dict[str, Any]]:
        return [body["data"] for body in self.bodies(outcome)]


@pytest.fixture
def table(tmp_path: Path, server: FakeServer) -> Table:
    server.reset()
    return Table(tmp_path)


def test_a_row_goes_in_and_comes_out_with_its_answer(table: Table, server: FakeServer) -> None:
    outcome = table.ask(server.url, prompt="{{name}} ({{age}}, {{tags}}): {{letter}}", column="reply")
    rows = table.data(outcome)
    assert [{k: v for k, v in row.items() if k != "reply"} for row in rows] == PEOPLE
    assert all(row["reply"] for row in rows) and server.stats()["calls"] == 3
    origins = [orjson.loads(row["origin"]) for row in table.records(outcome, "answers")]
    assert {o["prompt"].partition("@")[0] for o in origins} == {"ask"} and all(o["calls"] for o in origins)
    assert [r["parents"] for r in table.records(outcome, "answers")] == [
        [r["id"]] for r in table.records(outcome, "rows")
    ]


def test_an_answer_in_parts_has_their_types(table: Table, server: FakeServer) -> None:
    fields = {
        "mood": ["glad", "cross"],
        "weight": {"type": "integer", "minimum": 1, "maximum": 5},
        "json": "boolean",
        "score": "number",
        "words": {"type": "array", "items": {"type": "string", "maxLength": 40}, "maxItems": 3},
    }
    for row, person in zip(table.data(table.ask(server.url, prompt="{{letter}}", fields=fields)), PEOPLE, strict=True):
        assert row.items() >= person.items() and row.keys() == person.keys() | fields.keys()
        assert row["mood"] in ("glad", "cross") and 1 <= row["weight"] <= 5 and isinstance(row["json"], bool)
        assert isinstance(row["score"], float) and len(row["words"]) <= 3


def test_a_text_that_its_bound_cut_off_is_no_answer() -> None:
    parts = answer_model((("why", FieldSchema(maxLength=20)),))
    assert parts.model_validate({"why": "It rained all night."[-20:]}) and parts.model_validate({"why": "It rained"})
    with pytest.raises(ValueError, match="breaks off after 20 characters"):
        parts.model_validate({"why": "It rained all the ni"})


def test_samples_are_chats_without_the_examples(table: Table, server: FakeServer) -> None:
    table.write("ask.md", "@system\nYou greet {{name}}.\n@user\nHi\n@assistant\nHo\n@user\nThe letter: {{letter}}\n")
    config = {"prompt_file": "ask.md", "gives": "sample", "samples": 3, "temperature": 0.9}
    outcome = table.ask(server.url, **config)
    assert server.stats()["calls"] == 9
    samples = table.bodies(outcome)
    assert len(samples) == 9 and len({sample["messages"][-1]["content"] for sample in samples}) > 3
    for n, sample in enumerate(samples):
        said = [(m["role"], m["train"]) for m in sample["messages"]]
        assert said == [("system", False), ("user", False), ("assistant", True)]
        person = PEOPLE[n // 3]
        assert sample["messages"][0]["content"] == f"You greet {person['name']}."
        assert sample["messages"][1]["content"] == f"The letter: {person['letter']}"  # a value is no template


def test_what_a_row_lacks_costs_that_row(table: Table, server: FakeServer) -> None:
    outcome = table.ask(server.url, prompt="{{name}}: {{note}}")
    assert [row["name"] for row in table.data(outcome)] == ["Bo"]
    assert [row["reason"] for row in table.rejects(outcome, "answers")] == ["no value for note"] * 2
    assert server.stats()["calls"] == 1


def test_an_empty_or_cut_off_answer_is_no_answer(table: Table, server: FakeServer) -> None:
    server.reset(finish="length")
    outcome = table.ask(server.url, code=3, prompt="{{name}}: {{letter}}")
    assert outcome["funnel"] == {} or not table.data(outcome)
    assert "truncated answer" in outcome["hint"]
    server.reset(finish="")


def test_one_answer_is_asked_about_in_the_next(table: Table, server: FakeServer) -> None:
    table.set_up(server.url, prompt="{{letter}}", column="first")
    text = (table.folder / "recipe.yaml").read_text("utf-8")
    second = "  second: {kind: generate.ask, model: writer, prompt: '{{first}} {{%s}}', column: last}\n"
    recipe = table.write("recipe.yaml", text + second % "name")
    outcome = table.go()
    assert [row["data"].keys() >= {"name", "first", "last"} for row in table.bodies(outcome, "second")] == [True] * 3
    table.write("recipe.yaml", text + second % "third")
    assert "unknown names: third" in table.run("check", recipe, code=2).stderr


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"prompt": "{{letter}} by {{nam}}"}, "unknown names: nam. Known here: age, letter, name, note, tags"),
        ({"prompt": "{{name}}", "column": "age"}, "the rows already have age"),
        ({"prompt": "{{name}}", "fields": {"age": "integer"}}, "the rows already have age"),
        ({}, "give either `prompt` or `prompt_file`"),
        ({"prompt": "{{name}}", "prompt_file": "people.jsonl"}, "give either `prompt` or `prompt_file`"),
        ({"prompt_file": "gone.md"}, "no such file or folder: gone.md"),
        ({"prompt_file": "people.jsonl", "system": "x"}, "`system` goes with `prompt`"),
        ({"prompt": "{{name}}", "samples": 2}, "several samples at temperature 0"),
        ({"prompt": "{{name}}", "fields": {"x": "text"}}, "fields.x.type"),
        ({"prompt": "{{name}}", "fields": {"x": {"type": "integer", "maxItems": 3}}}, "maxItems belongs to array"),
        ({"prompt": "{{name}}", "gives": "sample", "column": "x"}, "`column` names a plain answer"),
        ({"prompt": "@user\nHi {{name}}\n@assistant\nHo"}, "does not end with a user message"),
    ],
)
def test_what_cannot_work_is_refused_free(table: Table, server: FakeServer, config: dict[str, Any], said: str) -> None:
    table.set_up(server.url, **config)
    refused = table.run("check", table.folder / "recipe.yaml", code=2)
    assert said in refused.stderr and "1 problem in the recipe" in refused.stderr
    assert server.stats()["calls"] == 0


def test_the_next_stage_is_told_what_it_gets(table: Table, server: FakeServer) -> None:
    for gives, code in (("sample", 0), ("row", 2)):
        table.set_up(server.url, prompt="{{name}}", gives=gives)
        text = (table.folder / "recipe.yaml").read_text("utf-8")
        recipe = table.write("recipe.yaml", text + "  tidy: {kind: curate.dedup}\n")
        table.run("check", recipe, code=code)


def test_a_chunk_has_fields_too(tmp_path: Path, server: FakeServer) -> None:
    project = Project(tmp_path)
    project.add("Orvale")
    ask = {"kind": "generate.ask", "model": "writer", "prompt": "{{title}}: {{text}}"}
    project.recipe(server.url, stages={**dict.fromkeys(("facts", "cloze", "clean")), "answers": ask})
    for row in project.records(project.go(), "answers"):
        data = orjson.loads(row["body"])["data"]
        assert data["title"] == "Orvale" and data["text"] and data["answer"]
    ask["prompt"] = "{{body}}"
    recipe = project.recipe(server.url, stages={**dict.fromkeys(("facts", "cloze", "clean")), "answers": ask})
    assert "unknown names: body" in project.run("check", recipe, code=2).stderr


def test_the_shipped_recipe_runs(tmp_path: Path, server: FakeServer) -> None:
    environment = {**os.environ, "LLM_URL": server.url, "LLM_KEY": "k", "GRISTMILL_WORKSPACE": str(tmp_path)}
    command = [
        sys.executable,
        "-m",
        "gristmill",
        "run",
        "recipes/rows.yaml",
        "--set",
        "models.writer.model=m",
        "--json",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert orjson.loads(done.stdout)["funnel"]["sorted"]["given"] == 6
