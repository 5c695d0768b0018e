"""A stage's rows as files for other tools: only their columns, every value again."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from tests.runs.project import Project

ROWS = [
    {"name": "Orvale, the old", "age": 3, "share": 1, "ok": True, "tags": ["a", "b"], "any": 1, "big": 2**63},
    {"name": 'says "no"\nand goes', "age": None, "share": 0.5, "ok": None, "tags": None, "any": "one"},
    {"name": "Ünö", "age": -4, "share": 2**60 + 1, "ok": False, "late": {"deep": [1]}},
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Rows read, and their duplicates dropped; nobody is asked."""
    project = Project(tmp_path_factory.mktemp("rows"))
    project.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    project.write("labels.jsonl", json.dumps({"text": "A fine mill", "label": "good"}))
    project.add("Orvale")
    stages = {
        "labels": {"kind": "ingest.samples", "paths": ["labels.jsonl"], "format": "labelled"},
        "rows": {"kind": "ingest.rows", "paths": ["rows.jsonl"]},
        "read": {"kind": "ingest.read", "paths": ["documents"]},
    }
    project.write("recipe.yaml", yaml.safe_dump({"name": "table", "stages": stages}, sort_keys=False))
    project.go()
    return project


def exported(project: Project, to: Path, kind: str) -> Path:
    project.run("export", "latest", "--format", kind, "--to", to)
    [made] = to.iterdir()
    assert made.name == f"rows.{kind}"
    return made


def test_lines_keep_every_value(project: Project, tmp_path: Path) -> None:
    lines = exported(project, tmp_path / "out", "jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == ROWS
    assert "not empty" in project.run("export", "latest", "--format", "csv", "--to", tmp_path / "out", code=2).stderr


def test_samples_of_every_form_have_a_format(project: Project, tmp_path: Path) -> None:
    said = project.run("export", "latest", "--format", "openai", "--to", tmp_path / "chats", code=3).stderr
    assert "labelled" in said
    project.run("export", "latest", "--format", "labelled", "--to", tmp_path / "out")
    [row] = (tmp_path / "out" / "labelled" / "train.jsonl").read_text("utf-8").splitlines()
    assert (json.loads(row)["text"], json.loads(row)["label"]) == ("A fine mill", "good")


def test_a_table_has_a_column_for_each_name(project: Project, tmp_path: Path) -> None:
    with exported(project, tmp_path / "out", "csv").open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    for row, one in zip(ROWS, found, strict=True):
        assert one.keys() == {name for row in ROWS for name in row}
        said = {name: value for name, value in row.items() if value is not None}
        assert {n: v for n, v in one.items() if v} == {
            name: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            for name, value in said.items()
        }


def test_an_exported_table_is_read_back_as_it_was(tmp_path: Path) -> None:
    rows = [{"a": "first\rsecond", "b": "x"}, {"a": "\r", "b": "one\r\ntwo\nthree"}, {"a": 'a "quote", too', "b": "é"}]
    project = Project(tmp_path)
    project.write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    for source, to in (("rows.jsonl", "csv"), ("csv/rows.csv", "jsonl")):
        stages = {"rows": {"kind": "ingest.rows", "paths": [source]}}
        project.write("recipe.yaml", yaml.safe_dump({"name": "table", "stages": stages}))
        assert project.rejects(project.go(), "rows") == []
        made = exported(project, tmp_path / to, to)
    assert [json.loads(line) for line in made.read_text("utf-8").splitlines()] == rows


def test_a_column_of_parquet_has_one_type(project: Project, tmp_path: Path) -> None:
    table = pq.read_table(exported(project, tmp_path / "out", "parquet"))
    types = {field.name: str(field.type) for field in table.schema}
    assert types == {
        **dict.fromkeys(("name", "tags", "any", "big", "late"), "string"),
        **{"age": "int64", "share": "double", "ok": "bool"},
    }
    first, second, third = table.to_pylist()
    assert (first["tags"], first["any"], second["any"], first["big"]) == ('["a","b"]', "1", "one", str(2**63))
    assert (third["age"], third["share"], third["ok"], third["late"]) == (-4, float(2**60 + 1), False, '{"deep":[1]}')
    assert second["age"] is None and second["tags"] is None


def test_what_gives_no_rows_is_said(project: Project, tmp_path: Path) -> None:
    said = project.run("export", "latest", "--format", "csv", "--to", tmp_path / "x", "--stage", "read", code=3).stderr
    assert "no rows to export" in said and not (tmp_path / "x").exists()
