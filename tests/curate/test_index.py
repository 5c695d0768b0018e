"""Samples of earlier runs: found across recipes, never in a former version of the same data; the index is derived."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.core.errors import GristmillError
from gristmill.core.records import Sample
from gristmill.runs.execute import execute
from gristmill.runs.folder import Output, RunFolder
from gristmill.runs.plan import make_plan
from gristmill.runs.verify import verify
from gristmill.runs.workspace import Workspace

LONG = (
    "The old mill by the river was built of granite after a hard winter, and its wheel is made of oak that grew near by"
)
ONE = ["The harbour freezes every winter.", f"{LONG}.", "Nobody keeps the tower."]
TWO = ["THE HARBOUR freezes every winter!", f"{LONG} once.", "Somebody keeps the gate.", "The gate is heavy."]


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    workspace = Workspace(tmp_path / "workspace")
    yield workspace
    workspace.store.close()


def go(workspace: Workspace, folder: Path, name: str, texts: list[str], **settings: Any) -> RunFolder:
    """A run over a table of texts; the recipe is the table's name."""
    table = folder / f"{name}.jsonl"
    table.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    stages = {"texts": {"kind": "ingest.samples", "paths": [table.name]}, "new": {"kind": "curate.earlier", **settings}}
    recipe = folder / f"{name}.yaml"
    recipe.write_text(json.dumps({"name": name, "seed": 7, "stages": stages}))
    outcome = execute(make_plan(recipe, []), workspace, name=f"{name}-run")
    if outcome.error:
        raise outcome.error
    return RunFolder(outcome.folder)


def new(run: RunFolder) -> Output:
    return next(output for name, output in run.outputs().items() if name == "new")


def texts_of(run: RunFolder) -> list[str]:
    return [record.text for record in new(run) if isinstance(record, Sample)]


def test_what_an_earlier_run_holds_is_dropped(workspace: Workspace, tmp_path: Path) -> None:
    first = go(workspace, tmp_path, "one", ONE)
    assert texts_of(first) == ONE
    second = go(workspace, tmp_path, "two", TWO)
    assert texts_of(second) == TWO[2:]
    assert new(second).meta["counts"]["more"] == {"earlier runs": 1, "earlier samples": 3}
    held = {sample.id for sample in new(first)}
    details = [reject["detail"] for reject in new(second).rejects()]
    assert details[0].startswith("exactly: ") and details[1].startswith("nearly: ")
    assert all(any(name in detail for name in held) for detail in details)
    exact = go(workspace, tmp_path, "three", TWO, near=False, runs=["one-run"])
    assert texts_of(exact) == TWO[1:]


def test_a_former_version_of_the_same_data_is_no_earlier_run(workspace: Workspace, tmp_path: Path) -> None:
    go(workspace, tmp_path, "one", ONE)
    assert texts_of(go(workspace, tmp_path, "one", [*ONE, "The gate is heavy."])) == [*ONE, "The gate is heavy."]
    later = go(workspace, tmp_path, "two", ["The gate is heavy.", "A new one."])
    assert texts_of(later) == ["A new one."]
    assert new(later).meta["counts"]["more"]["earlier runs"] == 1  # the last version alone


def test_the_index_is_derived_and_its_loss_changes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    go(workspace, tmp_path, "one", ONE)
    before = texts_of(go(workspace, tmp_path, "two", TWO))
    assert list((workspace.cache / "sketches").glob("*.npz"))
    shutil.rmtree(workspace.cache)
    assert texts_of(go(workspace, tmp_path, "again", TWO, runs=["one-run"])) == before


def test_made_again_it_meets_the_runs_that_it_met(workspace: Workspace, tmp_path: Path) -> None:
    first, second = go(workspace, tmp_path, "one", ONE), go(workspace, tmp_path, "two", TWO)
    third = go(workspace, tmp_path, "three", TWO, runs=["one-run"])
    assert verify(workspace, second).identical and verify(workspace, third).identical
    shutil.rmtree(first.path)
    verdict = next(each for each in verify(workspace, second).stages if each.stage == "new")
    assert verdict.verdict == "not reproducible here"
    assert "the earlier runs were 1 with 3 samples, and are 0 with 0 samples here" in verdict.why


def test_a_run_that_is_named_must_be_there(workspace: Workspace, tmp_path: Path) -> None:
    go(workspace, tmp_path, "one", ONE)
    with pytest.raises(GristmillError, match="none of its own earlier runs"):
        go(workspace, tmp_path, "two", TWO, runs=["latest"])
    with pytest.raises(GristmillError, match="no run is called gone"):
        go(workspace, tmp_path, "two", TWO, runs=["gone"])
