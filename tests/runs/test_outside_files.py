"""Files that a stage reads by itself belong to the keys of its results, and of nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fakes.fixtures import FakeServer
from tests.runs.project import Project
from tests.train.conftest import make_model_folder
from tokenizers import Tokenizer

from gristmill.core.events import read_events


def reused(outcome: dict[str, Any]) -> set[str]:
    events = read_events(Path(outcome["folder"]) / "events.ndjson")
    return {event["stage"] for event in events if event["event"] == "stage.reused"}


def test_another_tokenizer_under_the_same_path_cuts_anew(project: Project, fake: FakeServer) -> None:
    (project.folder / "student").mkdir()
    make_model_folder(project.folder / "student")
    project.recipe(fake.url, stages={"chunks": {"tokenizer": "student", "tokens": 40}})
    first = project.go()
    place = project.folder / "student" / "tokenizer.json"
    before = place.read_bytes()
    tokenizer = Tokenizer.from_file(str(place))
    tokenizer.add_tokens([" is a harbour town with ", " has ", "The "])  # fewer tokens for the same text
    tokenizer.save(str(place))
    second = project.go()
    assert second["run"] != first["run"] and reused(second) == {"read.files", "read"}
    assert project.records(second, "chunks") != project.records(first, "chunks")
    place.write_bytes(before)
    fake.reset()
    assert project.go()["run"] == first["run"] and fake.stats()["calls"] == 0


def test_weights_beside_the_tokenizer_do_not_matter_to_chunks(project: Project, fake: FakeServer) -> None:
    (project.folder / "student").mkdir()
    make_model_folder(project.folder / "student")
    project.recipe(fake.url, stages={"chunks": {"tokenizer": "student"}})
    first = project.go()
    weights = project.folder / "student" / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert project.go() == first | {"state": "shown"}


def test_a_tokenizer_that_is_not_there_is_said(project: Project, fake: FakeServer) -> None:
    project.recipe(fake.url, stages={"chunks": {"tokenizer": "nowhere"}})
    assert "nowhere is neither in the catalogue nor on disk" in project.go(code=2)["error"]
