"""The recipes on data run as they are, on a tiny model: a table larger than a batch, and three splits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.runs.execute import execute
from gristmill.runs.plan import make_plan
from gristmill.runs.workspace import Workspace

RECIPES = Path(__file__).parents[2] / "recipes"
pytestmark = pytest.mark.usefixtures("reader")


def finished(name: str, tmp_path: Path, *sets: str) -> tuple[Path, dict[str, Any]]:
    plan = make_plan(RECIPES / f"{name}.yaml", list(sets))
    outcome = execute(plan, Workspace(tmp_path / "ws"))
    assert outcome.state == "finished", outcome.error
    (report,) = outcome.folder.rglob("mask_report.json")
    return outcome.folder, orjson.loads(report.read_bytes())


def test_streaming(model_folder: Path, tmp_path: Path) -> None:
    rows = {"content": [f"{at} mills stand by the river of Orvale. " * 3 for at in range(900)]}
    pq.write_table(pa.table(rows), tmp_path / "corpus.parquet", row_group_size=400)
    _, report = finished(
        "streaming",
        tmp_path,
        f"models.student.model={model_folder}",
        f'stages.texts.paths=["{tmp_path}/corpus.parquet"]',
        "stages.texts.names={text: content}",
        "stages.tune.context=256",
        "stages.tune.tokens=1500",
        "stages.tune.eval_every=100",
        "stages.tune.threads=1",
    )
    assert 120 < report["validation"]["samples"] < 240
    assert report["samples"] + report["validation"]["samples"] == 900
    assert report["shown"]["text"].endswith("of Orvale. <|im_end|>⟧")


def test_splits(model_folder: Path, tmp_path: Path) -> None:
    folder, report = finished(
        "splits",
        tmp_path,
        f"models.student.model={model_folder}",
        "stages.tune.context=256",
        "stages.tune.epochs=null",
        "stages.tune.steps=2",
    )
    exported = {
        path.stem: len(path.read_bytes().splitlines()) for path in (folder / "exports/pairs/preference").iterdir()
    }
    assert exported["test"] > 0
    assert (exported["train"], exported["validation"]) == (report["samples"], report["validation"]["samples"])
    assert report["shown"]["preference"].startswith("chosen:\n")
