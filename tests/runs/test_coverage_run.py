"""Coverage in a run: rounds go on until the target is met, the map stands in the report, and the exam's own questions
are kept out of training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.runs.project import Project

from gristmill.cli.tables import exam_table
from gristmill.core.records import Report, Sample
from gristmill.core.statements import wanted_of
from gristmill.runs.advice import advice
from gristmill.runs.execute import execute
from gristmill.runs.folder import Counts, Output, RunFolder, Writer
from gristmill.runs.identity import identify
from gristmill.runs.plan import Plan, make_plan
from gristmill.runs.report.reports import numbers
from gristmill.runs.sweep import trial_plans
from gristmill.runs.workspace import Workspace

LOOP: dict[str, Any] = {
    "read": {"kind": "ingest.read", "paths": ["documents"]},
    "chunks": {"kind": "ingest.chunk", "tokens": 60},
    "gaps": {"kind": "curate.gaps", "most": 1, "needs": ["chunks", "kept.before"]},
    "cloze": {"kind": "generate.cloze", "forms": ["blank"], "per_sentence": 1, "needs": ["gaps"]},
    "kept": {"kind": "curate.dedup", "near": False, "needs": ["cloze.all"]},
    "coverage": {"kind": "curate.coverage", "needs": ["chunks", "kept"]},
}
ROOT = Path(__file__).parents[2]
SHIPPED = [*sorted((ROOT / "recipes").glob("*.yaml")), ROOT / "src/gristmill/cli/template/recipe.yaml"]
EXAMINING = [path for path in SHIPPED if any(a in path.read_text("utf-8") for a in ("evaluate.exam", "extends: demo"))]
MODELS = {
    "student": {"provider": "local", "model": "smollm2-135m-instruct"},
    "tuned": {"from": "tune"},
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.add("Orvale", "Tessmoor")
    return project


@pytest.fixture
def workspace(project: Project) -> Iterator[Workspace]:
    workspace = Workspace(project.workspace)
    yield workspace
    workspace.store.close()


def plan(project: Project, stages: dict[str, Any], **more: Any) -> Plan:
    path = project.write(
        "recipe.yaml", yaml.safe_dump({"name": "loop", "seed": 3, "stages": stages, **more}, sort_keys=False)
    )
    return make_plan(path)


def test_rounds_go_on_until_every_sentence_is_covered(project: Project, workspace: Workspace) -> None:
    repeat = {"stages": ["gaps", "cloze", "kept", "coverage"], "times": 6, "until": "coverage.covered >= 0.8"}
    outcome = execute(plan(project, LOOP, repeat=repeat), workspace, name="loop")
    assert outcome.state == "finished", outcome.error
    folder = RunFolder(outcome.folder)
    outputs = folder.outputs()
    told = [
        report.data for name, output in outputs.items() if name.startswith("coverage") for report in output.only(Report)
    ]
    shares = [float(data["covered"]) for data in told]  # type: ignore[arg-type]
    assert len(shares) > 1 and shares == sorted(shares) and shares[-2] < 0.8 <= shares[-1]
    assert all(len(wanted_of(chunk) or ()) == 1 for chunk in outputs["gaps"])  # type: ignore[arg-type]
    page = (folder.path / "report.html").read_text("utf-8")
    assert "<h2>Coverage</h2>" in page and page.count('<rect class="cell') == told[-1]["units"]
    assert page.count('<rect class="cell none"') == round((1 - shares[-1]) * int(told[-1]["units"]))  # type: ignore[call-overload]
    assert "Not covered yet" in page and "coverage.2" in page
    assert f"coverage: covered {shares[0]:.6g}, " in exam_table(folder) and "accuracy" not in exam_table(folder)


def test_the_number_of_rounds_can_be_swept(project: Project) -> None:
    repeat = {"stages": ["gaps", "cloze", "kept", "coverage"], "times": 2, "until": "coverage.covered >= 0.8"}
    keys = {"metric": "coverage.covered", "goal": "max", "keys": {"repeat.times": [1, 3]}}
    found = trial_plans(plan(project, LOOP, repeat=repeat, sweep=keys))
    once, thrice = (trial for _, trial in found)
    assert [values["repeat.times"] for values, _ in found] == [1, 3]
    assert len(thrice.nodes) - len(once.nodes) == 2 * len(repeat["stages"])


def trained(*, apart: bool) -> dict[str, Any]:
    stages = {name: LOOP[name] for name in ("read", "chunks")}
    stages["cloze"] = {"kind": "generate.cloze", "forms": ["question"]}
    if apart:
        stages["apart"] = {"kind": "curate.decontaminate"}
    stages["tune"] = {"kind": "train.sft", "model": "student", "tokens": 1000}
    exam = {"kind": "evaluate.exam", "models": ["student", "tuned"], "tasks": "exam.jsonl", "needs": ["chunks", "tune"]}
    return stages | {"exam": exam}


def test_check_advises_to_keep_the_exam_out_of_training(project: Project) -> None:
    project.write("exam.jsonl", json.dumps({"question": "Who?", "answers": ["Harm"], "document": "orvale.md"}))
    [said] = advice(plan(project, trained(apart=False), models=MODELS))
    assert said.startswith("tune trains on samples that nobody has compared with the questions of exam")
    assert advice(plan(project, trained(apart=True), models=MODELS)) == []
    untaught = {name: LOOP[name] for name in ("read", "chunks")} | {"cloze": {"kind": "generate.cloze"}}
    assert advice(plan(project, untaught)) == []


def test_check_advises_to_look_for_private_data_behind_a_harvest_again(project: Project) -> None:
    stages = {name: LOOP[name] for name in ("read", "chunks")} | {"cloze": {"kind": "generate.cloze"}}
    stages |= {"masked": {"kind": "curate.pii"}, "lessons": {"kind": "generate.harvest"}}
    [said] = advice(plan(project, stages))
    assert said.startswith("lessons takes prompts as they were asked, not as curate.pii left the records")
    assert advice(plan(project, stages | {"again": {"kind": "curate.pii"}})) == []


def test_check_says_what_the_gate_cannot_read_of_a_translation(project: Project) -> None:
    stages = {name: LOOP[name] for name in ("read", "chunks")}
    stages |= {
        "qa": {"kind": "generate.qa", "model": "writer", "language": "German"},
        "ground": {"kind": "curate.ground"},
    }
    models = {"writer": {"provider": "openai", "base_url": "https://llm.example.org/v1", "model": "m"}}
    [said] = advice(plan(project, stages, models=models))
    assert said.startswith("ground can compare numbers alone where qa writes German")
    judged = stages | {"judge": {"kind": "curate.judge", "model": "writer", "checks": ["accurate"]}}
    assert advice(plan(project, judged, models=models)) == []
    assert advice(plan(project, stages | {"qa": stages["qa"] | {"language": None}}, models=models)) == []


def test_check_says_that_rounds_write_their_files_anew(project: Project) -> None:
    stages = LOOP | {"files": {"kind": "curate.export", "name": "files", "needs": ["kept"]}}
    rounds = {"times": 2, "until": "coverage.covered >= 0.8"}
    [said] = advice(plan(project, stages, repeat=rounds | {"stages": ["gaps", "cloze", "kept", "coverage", "files"]}))
    assert said.startswith("files writes its files anew in every round")
    assert advice(plan(project, stages, repeat=rounds | {"stages": ["gaps", "cloze", "kept", "coverage"]})) == []


def test_a_model_that_another_training_begins_with_is_kept_apart_too(project: Project) -> None:
    project.write("exam.jsonl", json.dumps({"question": "Who?", "answers": ["Harm"], "document": "orvale.md"}))
    stages = trained(apart=False)
    first = {"kind": "train.sft", "model": "student", "tokens": 1000, "needs": ["cloze"]}
    late = {"apart": {"kind": "curate.decontaminate", "needs": ["cloze"]}, "tune": {**stages["tune"], "model": "begun"}}
    ordered = {"read": stages["read"], "chunks": stages["chunks"], "cloze": stages["cloze"], "first": first, **late}
    [said] = advice(plan(project, ordered | {"exam": stages["exam"]}, models={**MODELS, "begun": {"from": "first"}}))
    assert said.startswith("first trains on samples that nobody has compared")


@pytest.mark.parametrize("recipe", EXAMINING, ids=lambda path: path.stem)
def test_every_recipe_that_is_shipped_keeps_its_exam_apart(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_URL", "https://llm.example.org/v1")
    monkeypatch.setenv("LLM_KEY", "none")
    named = ["models.writer.model=m"] if "writer:" in recipe.read_text("utf-8") else []
    assert (
        advice(make_plan(recipe, [*named, f"stages.read.paths={json.dumps([str(ROOT / 'examples/documents')])}"])) == []
    )


def test_the_exam_is_found_and_what_it_asks_is_dropped(project: Project, workspace: Workspace) -> None:
    asked = "How many passengers does the ferry of Orvale carry?"
    line = {"question": asked, "answers": ["70"], "document": "documents/orvale.md"}
    project.write("exam.jsonl", json.dumps(line))
    stages = trained(apart=True)
    before = plan(project, stages, models=MODELS)
    assert before.node("apart").config.exams == ["exam.jsonl"]  # type: ignore[attr-defined]
    first = identify(before, workspace).fingerprint
    short = {name: stages[name] for name in ("read", "chunks", "cloze")}
    given = {"kind": "curate.decontaminate", "benchmarks": ["exam.jsonl"]}
    outcome = execute(plan(project, short | {"apart": given}), workspace, name="given")
    assert outcome.state == "finished", outcome.error
    output = RunFolder(outcome.folder).outputs()["apart"]
    assert [row["reason"] for row in output.rejects()] == ["asks an exam question"]
    assert all(sample.question != asked for sample in output if isinstance(sample, Sample))
    project.write("exam.jsonl", json.dumps({**line, "question": "Who lives there?"}))
    assert identify(plan(project, stages, models=MODELS), workspace).fingerprint != first


def test_other_reports_are_told_in_figures(project: Project) -> None:
    """As they lie in a run's folder; exams and maps have sections of their own."""
    reports = [
        Report(title="Agreement", data={"rounds": 3, "checks": {"sound": {"n": 4, "kappa": None}, "all": {"n": 5}}}),
        Report(title="Exam", data={"arms": {"tuned": {"right": 3}}}),
    ]
    output = Output(project.folder / "stages" / "01-agreement")
    with Writer(output, Counts()) as writer:
        writer.give([report.to_row() for report in reports])
        writer.finish("f", kind="curate.calibration")
    page = numbers({"agreement": output})
    assert "<h2>Agreement</h2>" in page and "<td>rounds</td><td class=n>3</td>" in page and "Exam" not in page
    assert "<td>sound</td><td class=n>4</td><td class=n>-</td>" in page
