"""People's decisions and a judge's verdicts on the same samples, in one run, and how far the two agree."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.fakes.fixtures import fake_server

from gristmill.core.records import Report, Sample
from gristmill.runs.execute import execute
from gristmill.runs.exports import export_review
from gristmill.runs.folder import RunFolder
from gristmill.runs.plan import make_plan
from gristmill.runs.workspace import Workspace

RUBRIC = {"question": "How good is it?", "choices": ["poor", "good"], "passes": ["good"]}


@pytest.fixture(scope="module")
def url() -> Any:
    with fake_server() as server:
        yield server.url


def test_decisions_and_verdicts_on_the_same_samples_become_an_agreement(url: str, tmp_path: Path) -> None:
    lines = [{"text": f"The mill number {n} stands by the river and has {n + 2} wheels."} for n in range(24)]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    workspace = Workspace(tmp_path / "ws")

    def run(name: str, **stages: Any) -> RunFolder:
        recipe = {
            "name": "judged",
            "seed": 7,
            "models": {"judge": {"provider": "openai", "base_url": url, "model": "fake-model"}},
            "stages": {"texts": {"kind": "ingest.samples", "paths": ["texts.jsonl"]}, **stages},
        }
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        outcome = execute(make_plan(path), workspace, name=name)
        assert outcome.state == "finished", outcome.error
        return RunFolder(outcome.folder)

    sheets = export_review(workspace, run("draft"), "review", tmp_path / "sheets")
    rows = [json.loads(line) for line in (sheets / "review.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows[:20]):
        row["decision"] = ("approve", "reject", "edit")[number % 3]
        row["text"] += " It is old." * (row["decision"] == "edit")
    (tmp_path / "decided.jsonl").write_text("\n".join(map(json.dumps, rows)))
    judged = run(
        "judged",
        review={"kind": "curate.review", "decisions": "decided.jsonl", "drop": False},
        judge={
            "kind": "curate.judge", "model": "judge", "drop": False, "votes": 1, "checks": ["fine"],
            "rubrics": {"fine": RUBRIC},
        },
        agreement={"kind": "curate.calibration"},
    )  # fmt: skip
    workspace.store.close()
    outputs = judged.outputs()
    samples = [sample for sample in outputs["judge"] if isinstance(sample, Sample)]
    assert [sample.text for sample in samples] == [line["text"] for line in lines]  # marked, and nothing else
    said = Counter(
        (sample.marks["judge_fine"] == "good", sample.marks["review"] == "approve")
        for sample in samples
        if "review" in sample.marks
    )
    [report] = [record for record in outputs["agreement"] if isinstance(record, Report)]
    told: dict[str, Any] = report.data["checks"]["fine"]  # type: ignore[index,call-overload,assignment]
    cells = {"both": (True, True), "judge": (True, False), "person": (False, True), "neither": (False, False)}
    assert {name: told[name] for name in cells} == {name: said[cell] for name, cell in cells.items()}
    assert told["samples"] == 20 and len(said) == 4 and told["low"] < told["agreement"] < told["high"]
    assert "The judge beside people" in (judged.path / "report.html").read_text("utf-8")
