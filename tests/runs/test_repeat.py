"""`repeat`: the same stages again until a target is met; every verb knows the rounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer
from tests.runs.project import PLACES, Project, stage_bytes

from gristmill.core.events import read_events
from gristmill.core.records import Chunk, Report, Sample
from gristmill.core.stage import Stage, StageConfig
from gristmill.runs.canary import try_out
from gristmill.runs.estimate import estimate
from gristmill.runs.execute import Outcome, execute
from gristmill.runs.folder import Output, RunFolder
from gristmill.runs.kinds import kinds
from gristmill.runs.lineage import Lineage
from gristmill.runs.plan import Plan, make_plan
from gristmill.runs.source import RecipeError
from gristmill.runs.status import Watch
from gristmill.runs.verify import verify
from gristmill.runs.workspace import Workspace

BLOCK = {"stages": ["facts", "cloze", "seen"], "times": 3, "until": "seen.taken >= 40"}


def recipe(project: Project, url: str, **changes: Any) -> Path:
    """A round asks for facts of every chunk; the target is a number of facts over all rounds."""
    stages = {
        "facts": {"kind": "generate.facts", "model": "writer", "per_chunk": 2, "temperature": 0.7, "needs": ["chunks"]},
        "cloze": {"kind": "generate.cloze", "needs": ["facts"]},
        "seen": {"kind": "curate.dedup", "near": False, "needs": ["cloze.all"]},
        "clean": None,
        "kept": {"kind": "curate.dedup", "near": False, "needs": ["cloze"]},
    }  # fmt: skip
    for name, change in changes.pop("stages", {}).items():
        stages[name] = {**stages.get(name, {}), **change}
    return project.recipe(url, stages=stages, **{"repeat": BLOCK, **changes})


def names(plan: Plan) -> list[str]:
    return [node.name for node in plan.nodes]


def test_a_block_stands_once_for_each_round_and_names_say_of_which_it_takes(project: Project, fake: FakeServer) -> None:
    plan = make_plan(recipe(project, fake.url))
    rounds = ["facts", "cloze", "seen", "facts.2", "cloze.2", "seen.2", "facts.3", "cloze.3", "seen.3"]
    assert names(plan)[3:] == [*rounds, "kept"]
    assert plan.node("facts.2").needs == ("chunks",) and plan.node("cloze.2").needs == ("facts.2",)
    assert plan.node("seen").needs == ("cloze",) and plan.node("seen.3").needs == ("cloze", "cloze.2", "cloze.3")
    assert plan.node("kept").needs == ("cloze", "cloze.2", "cloze.3")
    before = make_plan(recipe(project, fake.url, stages={"seen": {"needs": ["cloze", "cloze.before"]}}))
    assert before.node("seen").needs == ("cloze",) and before.node("seen.3").needs == ("cloze.3", "cloze", "cloze.2")


def go(project: Project, path: Path) -> tuple[Outcome, dict[str, Output]]:
    outcome = execute(make_plan(path), Workspace(project.workspace))
    return outcome, RunFolder(outcome.folder).outputs()


def test_rounds_run_until_the_target_is_met_and_the_others_are_skipped_aloud(
    project: Project, fake: FakeServer
) -> None:
    outcome, outputs = go(project, recipe(project, fake.url))
    assert outcome.state == "finished"
    first, second = outputs["cloze"], outputs["cloze.2"]
    assert first.count < 40 <= first.count + second.count == outputs["seen.2"].meta["counts"]["taken"]
    assert {record.id for record in first} != {record.id for record in second}  # the same chunks, asked anew
    assert outputs["kept"].meta["counts"]["taken"] == first.count + second.count
    why = f"seen.2.taken is {first.count + second.count}"
    assert outcome.summary["skipped"] == dict.fromkeys(["facts.3", "cloze.3", "seen.3"], why)
    events = list(read_events(outcome.folder / "events.ndjson"))
    assert [e["why"] for e in events if e["event"] == "stage.skipped"] == [why] * 3
    assert not [e for e in events if e["event"] == "warning"]
    page = (outcome.folder / "report.html").read_text("utf-8")
    assert f"Not needed: facts.3: {why}" in page and "facts.2" in page
    states = {
        stage["name"]: stage["state"] for stage in Watch(Workspace(project.workspace), "latest").state()["stages"]
    }
    assert states["facts.2"] == "done" and states["facts.3"] == "skipped"
    sample = next(iter(second))
    chunk = Lineage(RunFolder(outcome.folder)).back(sample).parents[0].parents[0]
    assert chunk.stage == "chunks" and chunk.record.text


def test_what_a_round_gave_is_proven_by_making_it_again(project: Project, fake: FakeServer) -> None:
    outcome, _ = go(project, recipe(project, fake.url))
    calls = fake.stats()["calls"]
    proven = verify(Workspace(project.workspace), RunFolder(outcome.folder))
    assert proven.identical and len(proven.stages) == 13
    part = verify(Workspace(project.workspace), RunFolder(outcome.folder), stage="cloze.2")
    assert part.identical and {s.stage for s in part.stages} >= {"seen", "cloze.2"}
    assert fake.stats()["calls"] == calls


def test_a_target_that_is_not_met_is_said_and_another_target_costs_nothing(project: Project, fake: FakeServer) -> None:
    outcome, outputs = go(project, recipe(project, fake.url, repeat=BLOCK | {"times": 2, "until": "seen.given > 900"}))
    warnings = [e["message"] for e in read_events(outcome.folder / "events.ndjson") if e["event"] == "warning"]
    assert warnings == [f"`repeat` ends with given at {outputs['seen.2'].count}: not seen.given > 900"]
    calls = fake.stats()["calls"]
    other, again = go(project, recipe(project, fake.url, repeat=BLOCK | {"times": 4, "until": "seen.taken > 1"}))
    assert other.folder != outcome.folder and fake.stats()["calls"] == calls
    assert again["facts"].count == outputs["facts"].count and again["facts.2"].count == 0


LEFT = """
from gristmill.core.records import Chunk, Sample

def run(config, records, ctx):
    asked = {chunk.id for r in records if isinstance(r, Sample) for chunk in ctx.ancestors(r, Chunk)}
    yield from (r for r in records if isinstance(r, Chunk) and r.id not in asked)
"""


def test_a_round_that_finds_nothing_more_to_do_is_the_last(
    project: Project, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass gives the chunks that no sample of the rounds before came from: in the second round there are none."""
    project.write("site/left_of_chunks.py", LEFT)
    monkeypatch.syspath_prepend(project.folder / "site")
    kind = Stage("left_of_chunks:run", StageConfig, (Chunk, Sample), (Chunk,), shape="pass")
    monkeypatch.setitem(kinds(), "test.left", (kind,))
    stages = {"left": {"kind": "test.left", "needs": ["chunks", "cloze.before"], "after": "chunks"}}
    stages["facts"] = {"needs": ["left"]}
    repeat = BLOCK | {"stages": ["left", "facts", "cloze", "seen"]}
    outcome, outputs = go(project, recipe(project, fake.url, stages=stages, repeat=repeat))
    assert outcome.state == "finished" and outputs["kept"].count
    assert outputs["left.2"].meta["counts"]["taken"] == outputs["chunks"].count + outputs["cloze"].count
    assert outcome.summary["skipped"] == dict.fromkeys(
        ["facts.2", "cloze.2", "seen.2", "left.3", "facts.3", "cloze.3", "seen.3"], "left.2 gave nothing"
    )
    warned, missed = [e for e in read_events(outcome.folder / "events.ndjson") if e["event"] == "warning"]
    assert warned["message"].startswith("stage left.2 gave nothing: no more rounds")
    assert missed["message"] == f"`repeat` ends with taken at {outputs['cloze'].count}: not seen.taken >= 40"


@pytest.mark.parametrize("asks", ["seen.takn > 1"])
def test_a_number_that_no_stage_gives_is_named_after_the_first_round(
    project: Project, fake: FakeServer, asks: str
) -> None:
    outcome, outputs = go(project, recipe(project, fake.url, repeat=BLOCK | {"until": asks}))
    assert outcome.state == "failed" and outcome.error is not None and outcome.error.exit_code == 2
    assert "seen gives no `takn`" in str(outcome.error) and "taken, given" in outcome.error.hint
    assert "facts.2" not in outputs


TOLD = """
from gristmill.core.records import Report

def run(config, records, ctx):
    yield Report(title="Told", data={"kappa": None, "n": len(list(records))})
"""


def test_a_number_that_a_report_cannot_say_is_a_target_not_met(
    project: Project, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("site/told_of.py", TOLD)
    monkeypatch.syspath_prepend(project.folder / "site")
    kind = Stage("told_of:run", StageConfig, (Sample,), (Report,), shape="pass")
    monkeypatch.setitem(kinds(), "test.told", (kind,))
    stages = {"told": {"kind": "test.told", "needs": ["cloze.all"], "after": "seen"}}
    repeat = {"stages": ["facts", "cloze", "seen", "told"], "times": 2, "until": "told.kappa >= 0.5"}
    outcome, outputs = go(project, recipe(project, fake.url, stages=stages, repeat=repeat))
    assert outcome.state == "finished" and outputs["facts.2"].count
    warnings = [e["message"] for e in read_events(outcome.folder / "events.ndjson") if e["event"] == "warning"]
    assert warnings == ["`repeat` ends with no value of kappa: not told.kappa >= 0.5"]


WRONG = {
    "`repeat` names no stage: fcts": {"repeat": {"stages": ["fcts"], "times": 2}},
    "the stages of `repeat` do not stand together": {"repeat": {"stages": ["facts", "seen"], "times": 2}},
    "`kept` is no stage of `repeat`": {"repeat": BLOCK | {"until": "kept.given > 1"}},
    "write it as STAGE.METRIC >= NUMBER": {"repeat": {"stages": ["seen"], "times": 2, "until": "seen has many"}},
    "seen comes later in the round": {"stages": {"cloze": {"needs": ["facts", "seen"]}}},
    "`needs` names no rounds: cloze.all": {"stages": {"kept": {"needs": ["cloze.all"]}}},
    "`needs` names no rounds: cloze.last": {"stages": {"seen": {"needs": ["cloze.last"]}}},
    "unknown key `time`": {"repeat": {"stages": ["seen"], "times": 2, "time": 2}},
    "generate.facts takes Chunk, but seen (curate.dedup) gives Sample": {
        "stages": {"facts": {"needs": ["chunks", "seen.before"]}}
    },
}


@pytest.mark.parametrize("said", WRONG)
def test_what_is_wrong_with_rounds_is_said_once_before_anything_is_asked(
    project: Project, fake: FakeServer, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        make_plan(recipe(project, fake.url, **WRONG[said]))
    assert [said in problem.message for problem in caught.value.problems] == [True]
    assert caught.value.problems[0].place.line > 0


def test_an_estimate_reaches_from_one_round_to_all_of_them(project: Project, fake: FakeServer) -> None:
    path = recipe(project, fake.url)
    run, trials = try_out(make_plan(path), Workspace(project.workspace), records=20)
    calls = fake.stats()["calls"]
    found = estimate(make_plan(path), Workspace(project.workspace), run, trials, records=20)
    asked = found["stages"]["facts"]["records"][0]
    assert calls == asked  # of the first round alone
    assert found["stages"]["facts.2"]["calls"] == [0, asked] and found["total"]["calls"] == [0, 2 * asked]
    assert found["stages"]["kept"]["records"][1] == 3 * found["stages"]["kept"]["records"][0]


def test_a_run_that_was_paused_in_a_later_round_ends_as_if_it_had_not_been(project: Project, fake: FakeServer) -> None:
    whole, _ = go(project, recipe(project, fake.url))
    elsewhere = Project(project.folder / "again")
    elsewhere.add(*PLACES[:4])
    paused, outputs = go(elsewhere, recipe(elsewhere, fake.url, budget={"calls": 11}))
    assert paused.state == "paused" and "seen" in outputs and "facts.2" not in outputs
    resumed, _ = go(elsewhere, recipe(elsewhere, fake.url))
    assert resumed.folder == paused.folder and resumed.state == "finished"
    made, expected = stage_bytes(resumed.folder), stage_bytes(whole.folder)
    made.pop("stages/01-read.files/records.parquet")  # it says where the files lie
    assert made.items() < expected.items() and any("facts.2" in name for name in made)
