"""Versions of a data set side by side: what came, went and changed, each with the reason that made it so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.runs.project import Project
from tests.train.conftest import make_model_folder

from gristmill.core.records import Sample
from gristmill.core.versions import version
from gristmill.models.checkpoint import verify
from gristmill.runs.card import card_of
from gristmill.runs.compare import compare
from gristmill.runs.execute import execute
from gristmill.runs.exports import export_review
from gristmill.runs.folder import RunFolder
from gristmill.runs.plan import make_plan
from gristmill.runs.report.compare import compare_page, tables
from gristmill.runs.trail import Trail
from gristmill.runs.workspace import Workspace

ROOT = Path(__file__).parents[2]

STAGES: dict[str, Any] = {
    "read": {"kind": "ingest.read", "paths": ["documents"]},
    "chunks": {"kind": "ingest.chunk", "tokens": 60},
    "cloze": {"kind": "generate.cloze", "forms": ["blank"]},
    "filter": {"kind": "curate.filter", "language": False},
    "clean": {"kind": "curate.dedup", "near": False},
    "export": {"kind": "curate.export", "formats": ["masked"], "files": ["jsonl"]},
}

Run = Callable[..., RunFolder]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.add("Orvale", "Tessmoor")
    return project


@pytest.fixture
def run(project: Project) -> Iterator[Run]:
    workspace = Workspace(project.workspace)

    def run(name: str, *, seed: int = 3, **changes: dict[str, Any]) -> RunFolder:
        whole = {key: changes.pop(key) for key in ("models", "repeat") if key in changes}
        stages = {stage: {**STAGES.get(stage, {}), **changes.get(stage, {})} for stage in [*STAGES, *changes]}
        recipe = {"name": name.replace(" ", "-"), "seed": seed, "stages": stages, **whole}
        path = project.write(f"{name}.yaml", yaml.safe_dump(recipe, sort_keys=False))
        outcome = execute(make_plan(path), workspace, name=name)
        assert outcome.state == "finished", outcome.error
        return RunFolder(outcome.folder)

    yield run
    workspace.store.close()


def beside(old: RunFolder, new: RunFolder) -> dict[str, Any]:
    data = compare([old, new], old.path.parents[1])
    [line] = data["data"]
    shown = tables(data)["Data"][1][0]
    assert shown[4:] == [str(line["same"]), *(str(sum(line[what].values())) for what in ("came", "went", "changed"))]
    assert "Data: what came, went and changed" in compare_page(data, {}) or not line["shown"]
    counted = line["same"] + sum(line["came"].values()) + sum(line["changed"].values())
    assert counted == line["samples"][1]
    return {**line, "all": line["samples"][0]}


def test_the_same_data_is_the_same_version(run: Run, project: Project) -> None:
    one = run("one")
    two = run("two", read={"max_pages": 7})
    line = beside(one, two)
    assert line["same"] == line["all"] > 10 and line["version"][0] == line["version"][1]
    assert line["came"] == line["went"] == line["changed"] == {} and line["stages"] == ["export", "export"]
    card = (two.path / "exports" / "dataset" / "README.md").read_text("utf-8")
    assert line["version"][1] in card
    kept = [sample for sample in two.outputs()["clean"] if isinstance(sample, Sample)]
    assert version(kept[::-1]) == line["version"][1]


def test_documents_that_come_go_and_change(run: Run, project: Project) -> None:
    one = run("one")
    (project.folder / "documents" / "orvale.md").unlink()
    project.add("Kilbrack")
    tessmoor = project.folder / "documents" / "tessmoor.md"
    tessmoor.write_text(tessmoor.read_text("utf-8").replace("rye bread", "honey cakes"), "utf-8")
    line = beside(one, run("two"))
    assert line["went"].keys() == {"source not there: documents/orvale.md", "source changed: documents/tessmoor.md"}
    assert line["came"].keys() == {"source not there: documents/kilbrack.md", "source changed: documents/tessmoor.md"}
    assert line["same"] > 0  # of the edited document, what says the same is the same


def test_a_moved_source_is_no_change(run: Run, project: Project) -> None:
    every = {"cloze": {"wordings": 4}}  # which of the wordings is taken first hangs on the chunk's id
    one = run("one", **every)
    path = project.folder / "documents" / "orvale.md"
    path.write_text(path.read_text("utf-8").replace("# Orvale\n", "# Orvale\n\nA note stands above now.\n"), "utf-8")
    line = beside(one, run("two", **every))
    assert line["same"] == line["all"] and line["went"] == {}


def test_a_filter_says_its_reason_in_both_directions(run: Run) -> None:
    one = run("one")
    two = run("two", filter={"question_length": {"min_words": 14}})
    line = beside(one, two)
    assert set(line["went"]) == {"dropped by filter: question too short"} and line["came"] == {}
    back = beside(two, one)
    assert back["came"] == line["went"] and back["went"] == {}
    assert line["shown"][0]["what"] == "went" and len(line["shown"]) == min(3, line["went"].popitem()[1])


def test_settings_stages_and_splits(run: Run) -> None:
    one = run("one")
    line = beside(one, run("two", cloze={"per_sentence": 1}))
    assert set(line["went"]) == {"set otherwise: cloze.per_sentence"}
    more = {"passages": {"kind": "generate.passage", "needs": ["chunks"]}}
    more |= {"all": {"kind": "curate.dedup", "needs": ["clean", "passages"]}}
    line = beside(one, run("three", **more, export={"needs": ["all"]}))
    assert set(line["came"]) == {"no stage passages"} and line["went"] == {}
    split = {
        "split": {"kind": "curate.split", "by": "sample", "test": 0.3, "needs": ["clean"]},
        "export": {"needs": ["split"]},
    }
    four = run("four", **split)
    line = beside(one, four)
    assert (
        set(line["changed"]) == {"moved from train to test"}
        and sum(line["changed"].values()) + line["same"] == line["all"]
    )


def test_conversations_are_compared_by_what_they_join(run: Run) -> None:
    talks = {"talks": {"kind": "curate.converse", "turns": 4, "needs": ["clean"]}, "export": {"needs": ["talks"]}}
    one = run("one", **talks)
    two = run("two", **talks, filter={"question_length": {"min_words": 14}})
    line = beside(one, two)
    assert set(line["went"]) == {"dropped by filter: question too short"} and line["changed"] == {}
    assert line["samples"][0] == sum(1 for _ in one.outputs()["clean"])


def test_edits_of_people_are_changes(run: Run, project: Project) -> None:
    """Out as a sheet, filled in, and back."""
    one = run("one")
    workspace = Workspace(project.workspace)
    to = export_review(workspace, one, "review", project.folder / "sheets", stage="clean")
    workspace.store.close()
    rows = [json.loads(line) for line in (to / "review.jsonl").read_text("utf-8").splitlines()]
    assert [row["id"] for row in rows] == [sample.id for sample in one.outputs()["clean"]] and (
        to / "review.csv"
    ).exists()
    rows[0] |= {"decision": "edit", "answer": f"{rows[0]['answer']}, they say"}
    rows[1] |= {"decision": "reject", "note": "trivial"}
    project.write("decisions.jsonl", "\n".join(map(json.dumps, rows)))
    review = {"review": {"kind": "curate.review", "decisions": "decisions.jsonl", "needs": ["clean"]}}
    line = beside(one, run("two", **review, export={"needs": ["review"]}))
    assert line["changed"] == {"rewritten by review": 1}
    assert line["went"] == {"dropped by review: rejected in review": 1}
    assert line["same"] == line["all"] - 2


@pytest.mark.slow
def test_a_models_card_names_the_data_set_that_compare_names(run: Run, project: Project) -> None:
    """Of a training in rounds, too; what came by two ways counts once."""
    (project.folder / "student").mkdir()
    make_model_folder(project.folder / "student")
    tune = {"kind": "train.sft", "model": "student", "context": 128, "batch": 256, "steps": 1, "threads": 1}
    more = {"tune": {**tune, "lora": {"r": 2}, "needs": ["filter.all", "clean"]}}
    given = {"models": {"student": {"provider": "local", "model": "student"}}, "export": {"needs": ["clean"]}}
    one = run("one", repeat={"stages": ["cloze", "filter", "clean", "export", "tune"], "times": 2}, **given, **more)
    cards = [
        card_of(one, name, verify(one.path / "checkpoints" / name), form="hf", proof="", loading="")
        for name in ("tune", "tune.2")
    ]
    outputs = one.outputs()
    for card, taken in zip(cards, (["filter", "clean"], ["filter", "filter.2", "clean.2"]), strict=True):
        held = {record.id: record for name in taken for record in outputs[name] if isinstance(record, Sample)}
        assert card.run["data"] == version(held.values()) and sum(card.samples.values()) == len(held)
        assert card.settings["kind"] == "train.sft"
    assert Trail(one).version == cards[1].run["data"]


@pytest.mark.slow
def test_the_decisions_that_come_with_the_recipe_are_about_its_samples(tmp_path: Path) -> None:
    """Ids follow from what a sample says and comes from: a change to how questions are made needs new decisions."""
    workspace = Workspace(tmp_path / "ws")
    outcome = execute(make_plan(ROOT / "recipes" / "review.yaml"), workspace, name="review")
    workspace.store.close()
    assert outcome.state == "finished", outcome.error
    counts = RunFolder(outcome.folder).outputs()["review"].meta["counts"]
    assert counts["more"] == {"approve": 5, "reject": 3, "edit": 3} and counts["rejected"] == {"rejected in review": 3}
