"""The page of a run: whole for every way a run can end, closed in itself, and safe with any text."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest

from gristmill.core.errors import InputError
from gristmill.core.events import EventLog
from gristmill.core.records import Quote, Report, Sample, Task
from gristmill.runs.folder import Counts, RunFolder, Writer
from gristmill.runs.lineage import Lineage
from gristmill.runs.report import charts, write_report

VOID = {"meta", "br", "line", "rect", "path", "circle", "polyline"}


class Balanced(HTMLParser):
    """Fails on a tag that is not closed where it should be, and on anything loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "img"), tag
        assert not any(name in ("src", "href") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag


def folder(path: Path, state: str = "finished", error: str | None = None) -> RunFolder:
    """A run's folder with no stage in it."""
    path.mkdir(parents=True)
    manifest = {"id": "r-1", "name": "r <b>", "started": "2026-01-01T00:00:00Z", "seed": 1}
    manifest |= {"models": {}, "inputs": {}, "prompts": {}, "attempts": []}
    spent = {"calls": 0, "tokens_in": 0, "tokens_out": 0}
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "summary.json").write_text(
        json.dumps({"state": state, "error": error, "hint": "", "spent": spent, "funnel": {}})
    )
    (path / "recipe.yaml").write_text("name: r\n")
    return RunFolder(path)


def page(run: RunFolder) -> str:
    write_report(run)
    text = (run.path / "report.html").read_text()
    parser = Balanced()
    parser.feed(text)
    assert parser.open == []
    return text


@pytest.mark.parametrize("state", ["failed", "cancelled", "paused", "incomplete"])
def test_a_run_that_did_nothing_has_a_page_that_says_why(tmp_path: Path, state: str) -> None:
    text = page(folder(tmp_path / "r", state, "no <disk> left"))
    assert f"{state}: no &lt;disk&gt; left" in text and "r &lt;b&gt;" in text


EVIL = "</td><script>alert(1)</script>"


def sample(n: int, text: str = EVIL) -> Sample:
    quote = Quote(text=f"{text} {n}", start=0, end=9, path="a.md", pages=(2,))
    return Sample(form="text", kind="passage", text=f"{text} {n}", quotes=(quote,))


def arm(right: int, n: int) -> dict[str, Any]:
    share = {"right": right, "n": n, "accuracy": right / n, "low": 0.0, "high": 1.0}
    return {**share, "tuned": True, "truncated": 0, "documents": {"a.md": share}, "kinds": {EVIL: share}}


def test_every_text_is_shown_and_none_is_markup(tmp_path: Path) -> None:
    run = folder(tmp_path / "r")
    made = Writer(run.stage(0, "facts"), Counts(taken=41))
    made.give(sample(n).to_row() for n in range(40))
    made.drop(sample(99).to_row(), "rejected", EVIL, EVIL)
    made.finish("f", kind="generate.passage", complete=True)
    name = "a candidate whose name is much too long for the axis"
    given = {"answer": EVIL * 20, "value": 0.0}
    question = {"question": EVIL, "answers": [EVIL], "arms": {name: given}}
    data = {"arms": {name: arm(1, 2), "other": arm(2, 2)}, "questions": [question]}
    told = Writer(run.stage(1, "exam"), Counts(taken=1))
    told.give([Report(title=EVIL, data=data).to_row()])
    told.finish("g", kind="evaluate.exam", complete=True)
    log = EventLog(run.path / "events.ndjson")
    for step in range(300):
        log.emit(
            "metric", stage="tune", step=step, loss=1 / (step + 1), **({"eval_loss": 1.0} if step % 50 == 0 else {})
        )
    log.close()
    text = page(run)
    assert "<script" not in text and "…" in text
    assert {"Funnel", "Dropped, and why", "Training: tune", "Sample lengths"} <= set(
        text.replace("<h2>", "</h2>").split("</h2>")
    )
    assert "validation loss" in text and "page 2" in text and text.count("class=pair") == 12


def test_charts_of_nothing_and_of_one_value() -> None:
    assert charts.curves({}, x_name="step", y_name="loss") == "" and charts.histogram([], name="words") == ""
    assert "<svg" in charts.curves({"a": [(1, 0.0)]}, x_name="step", y_name="loss")
    assert "<svg" in charts.histogram([7], name="words") and "<svg" in charts.funnel([])


def test_lineage_finds_teachers_and_refuses_what_is_ambiguous(tmp_path: Path) -> None:
    run = folder(tmp_path / "r")
    out = Writer(run.stage(0, "all"), Counts())
    task = Task(question="Who?", answers=("Harm",), document="x/a.md")
    out.give(record.to_row() for record in (task, sample(1, "Harm built it"), sample(2, "nobody")))
    out.finish("f", kind="k", complete=True)
    lineage = Lineage(run)
    assert [s.text for s in lineage.teachers(task)] == ["Harm built it 1"]
    assert lineage.exam(sample(1, "Harm built it")) == [task] and lineage.scores(task) == {}
    with pytest.raises(InputError, match="3 records' ids begin"):
        lineage.find("")


def test_a_stage_half_linked_by_a_killed_process_is_no_stage(tmp_path: Path) -> None:
    run = folder(tmp_path / "r")
    left = run.path / "stages" / ".01-read.77.tmp"
    left.mkdir(parents=True)
    (left / "stage.json").write_bytes(orjson.dumps({"fingerprint": "f"}))
    assert run.outputs() == {}
