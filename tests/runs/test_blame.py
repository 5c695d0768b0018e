"""A stage that comes to nothing: who is to blame, in the exit code and in words; and what asks again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.fakes.fixtures import FakeServer
from tests.runs.project import Project


class Rows(Project):
    """A table instead of documents, one question a row."""

    def rows(self, *texts: str) -> None:
        self.write("rows.jsonl", "".join(json.dumps({"n": n, "text": text}) + "\n" for n, text in enumerate(texts)))

    def ask(self, url: str, **ask: Any) -> None:
        writer = {"provider": "openai", "base_url": url, "model": "fake-model", "concurrency": 4, "attempts": 2}
        stages = {
            "rows": {"kind": "ingest.rows", "paths": ["rows.jsonl"]},
            "ask": {"kind": "generate.ask", "model": "writer", "prompt": "Say: {{text}}", "max_tokens": 99, **ask},
        }
        recipe = {"name": "table", "models": {"writer": writer}, "stages": stages}
        self.write("recipe.yaml", yaml.safe_dump(recipe, sort_keys=False))


@pytest.fixture
def table(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


@pytest.mark.parametrize("fault", ["refuse", "poison"])
def test_nothing_but_failures_at_the_provider_is_its_failure(table: Rows, fake: FakeServer, fault: str) -> None:
    table.rows(*(f"BAD {n}" for n in range(5)))
    table.ask(fake.url, max_failures=1.0)
    fake.fresh(**{fault: "BAD"})
    for _ in range(2):  # the second time from what is kept, or asked again
        outcome = table.go(code=4)
        assert outcome["state"] == "failed"
        assert f"5 records of 5 failed: HTTP {400 if fault == 'refuse' else 500} (5)" in outcome["error"]
        assert "the last: " in outcome["error"] and fake.url in outcome["error"]
        assert "gristmill retry" in outcome["hint"]


def test_a_run_that_stopped_at_failures_ends_the_same_way_when_it_is_run_again(table: Rows, fake: FakeServer) -> None:
    table.rows(*(f"BAD {n}" for n in range(30)))
    table.ask(fake.url)
    fake.fresh(refuse="BAD")
    first = table.go(code=4)
    asked = fake.stats()["calls"]
    assert "stage ask stopped" in first["error"]
    again = table.go(code=4)
    assert "stage ask stopped" in again["error"] and fake.stats()["calls"] == asked


def test_an_empty_table_is_named(table: Rows, fake: FakeServer) -> None:
    table.rows()
    table.ask(fake.url)
    outcome = table.go(code=3)
    assert "stage rows gave nothing" in outcome["error"] and "rows.jsonl" in outcome["hint"]
    assert "settings" not in outcome["hint"]


@pytest.mark.parametrize(
    ("rows", "code", "words"),
    [
        (["good", "BAD"], 4, "1 record could not be asked: `gristmill show {run} rejects` says why, the same command"),
        (["good", "SAD"], 0, "1 record failed: `gristmill show {run} rejects` says why, `gristmill retry {run}` asks"),
        (["good", "BAD", "SAD", "SAD too"], 4, "2 records failed and 1 could not be asked"),
    ],
)
def test_one_sentence_says_what_asks_again(
    table: Rows, fake: FakeServer, rows: list[str], code: int, words: str
) -> None:
    table.rows(*rows)
    table.ask(fake.url, max_failures=1.0)
    fake.fresh(poison="BAD", refuse="SAD")
    done = table.run("run", table.folder / "recipe.yaml", "--quiet", code=code)
    said = done.stdout + done.stderr
    [manifest] = table.workspace.glob("runs/*/manifest.json")
    assert words.format(run=manifest.parent.name) in said
    assert len([line for line in said.splitlines() if "again" in line]) == 1
