"""Trackers: what reaches them is read back with their own readers, and nothing that they do hurts the run."""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from tests.runs.project import Project

from gristmill.core.errors import ConfigError
from gristmill.core.events import Listener, read_events
from gristmill.runs import following, kinds
from gristmill.runs.execute import Outcome, execute
from gristmill.runs.plan import make_plan
from gristmill.runs.sinks import kinds as sink_kinds
from gristmill.runs.source import RecipeError
from gristmill.runs.status import Watch
from gristmill.runs.workspace import Workspace

_CODE = '''
import time
from pathlib import Path
from gristmill.core.errors import Cancelled
from gristmill.core.records import Draft
from gristmill.core.stage import Stage, StageConfig
from gristmill.runs.sinks import SinkConfig, SinkKind


class Curve(StageConfig):
    """So many steps; the first attempt stops at one of them."""
    steps: int = 40
    stop_at: int | None = None
    pause: float = 0


def curve(config, records, ctx):
    ctx.metric(device="cpu", share=0.5)
    mark = ctx.run_folder / "stopped"
    for step in range(1, config.steps + 1):
        time.sleep(config.pause)
        ctx.metric(step=step, loss=1 / step, lr=0.1)
        if step == config.stop_at and not mark.exists():
            mark.write_text("")
            raise Cancelled("stopped", "Again.")
    ctx.metric(step=config.steps, eval_loss=0.25)
    yield Draft(kind="curve", data={"steps": config.steps})


class LedgerConfig(SinkConfig):
    path: str
    break_at: int | None = None
    wait: float = 0


class Ledger:
    def __init__(self, config):
        self.config = config

    def write(self, points):
        time.sleep(self.config.wait)
        with open(self.config.path, "a") as file:
            for point in points:
                if point.step is not None and point.step == self.config.break_at:
                    raise ValueError("the ledger is full")
                file.write(f"{point.stage} {point.step} {sorted(point.values)}\\n")

    def close(self, state, artifacts):
        with open(self.config.path, "a") as file:
            file.write(f"{state} {sorted(artifacts)}\\n")


def open_ledger(config, about):
    if not Path(config.path).parent.exists():
        raise FileNotFoundError(config.path)
    return Ledger(config)


STAGES = {"mill.curve": (Stage("curves:curve", Curve, (), (Draft,), shape="pass"),)}
SINKS = {"ledger": SinkKind(LedgerConfig, "curves:open_ledger")}
'''

PLAIN = "walnut"
"""Written out where a variable should be named."""


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A package on the path that brings a stage and a sink by entry points, as an installed one would."""
    site = tmp_path_factory.mktemp("site")
    (site / "curves.py").write_text(_CODE)
    page = (Path(__file__).parents[2] / "docs/training/watching.md").read_text()
    (site / "my_sink.py").write_text(page.partition("```python\n")[2].partition("```")[0])
    info = site / "curves-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: curves\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[gristmill.stages]\ncurves = curves:STAGES\n[gristmill.sinks]\ncurves = curves:SINKS\nmine = my_sink:SINKS\n"
    )
    sys.path.insert(0, str(site))
    kinds.kinds.cache_clear()
    sink_kinds.sinks.cache_clear()
    yield
    sys.path.remove(str(site))
    kinds.kinds.cache_clear()
    sink_kinds.sinks.cache_clear()


def written(project: Project, sinks: dict[str, Any], **stage: Any) -> Path:
    recipe = {"name": "curves", "seed": 5, "sinks": sinks, "stages": {"tune": {"kind": "mill.curve", **stage}}}
    return project.write("recipe.yaml", yaml.safe_dump(recipe))


def go(project: Project, sinks: dict[str, Any], *hears: Listener, **stage: Any) -> Outcome:
    plan = make_plan(written(project, sinks, **stage))
    return execute(plan, Workspace(project.workspace), name="mine", listeners=hears)


def warnings(outcome: Outcome) -> list[str]:
    return [e["message"] for e in read_events(outcome.folder / "events.ndjson") if e["event"] == "warning"]


def test_tensorboard_files_hold_every_point(project: Project) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stopped = go(project, {"tensorboard": {}}, stop_at=25)
    assert stopped.state == "cancelled"
    outcome = go(project, {"tensorboard": {}}, stop_at=25)
    assert outcome.state == "finished" and warnings(outcome) == []
    board = EventAccumulator(str(outcome.folder / "sinks/tensorboard/tune"))
    board.Reload()
    assert set(board.Tags()["scalars"]) == {"loss", "lr", "eval_loss", "share"}
    assert [(s.step, s.value) for s in board.Scalars("loss")] == [(n, pytest.approx(1 / n)) for n in range(1, 41)]
    [device] = {text.tensor_proto.string_val[0] for text in board.Tensors("device")}
    assert device == b"cpu" and b'"seed": 5' in board.Tensors("recipe")[0].tensor_proto.string_val[0]


def test_tensorboard_takes_a_folder_that_runs_share(project: Project) -> None:
    outcome = go(project, {"tensorboard": {"folder": "boards"}}, steps=2)
    assert len(list((project.folder / "boards" / outcome.folder.name / "tune").glob("events.out.*"))) == 1


def test_mlflow_keeps_a_run_in_a_folder(project: Project) -> None:
    sinks = {"mlflow": {"uri": "mlruns", "experiment": "mills"}}  # by itself it is in the run's own folder
    assert go(project, sinks, stop_at=25).state == "cancelled"
    outcome = go(project, sinks, stop_at=25)
    assert outcome.state == "finished" and warnings(outcome) == []
    check_mlflow((project.folder / "mlruns").as_uri(), outcome)


def check_mlflow(uri: str, outcome: Outcome) -> None:
    """One run, gone on with, as MLflow's own client reads it."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("mills")
    [run] = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "mine" and run.info.status == "FINISHED"
    losses = client.get_metric_history(run.info.run_id, "tune/loss")
    assert sorted((m.step, m.value) for m in losses) == [(n, 1 / n) for n in range(1, 41)]
    assert run.data.metrics["tune/eval_loss"] == 0.25 and run.data.metrics["tune/share"] == 0.5
    assert run.data.tags["gristmill.run"] == outcome.folder.name and run.data.tags["tune.device"] == "cpu"
    assert run.data.params["stages.tune.kind"] == "mill.curve" and run.data.params["seed"] == "5"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"recipe.json", "report.html"}


def test_wandb_offline_leaves_runs_that_can_be_sent_later(project: Project) -> None:
    sinks = {"wandb": {"project": "mills"}}
    assert go(project, sinks, stop_at=25).state == "cancelled"
    outcome = go(project, sinks, stop_at=25)
    assert outcome.state == "finished" and warnings(outcome) == []
    folders = sorted((outcome.folder / "sinks/wandb/wandb").glob("offline-run-*"))
    assert len(folders) == 2 and (folders[-1] / "files/report.html").exists()
    seen: dict[str, list[Any]] = {}
    rows: list[int] = []
    for record in (record for folder in folders for record in wandb_ended(next(folder.glob("*.wandb")))):
        if record.HasField("history"):
            rows.append(record.history.step.num)
        for item in record.history.item:
            seen.setdefault("/".join(item.nested_key) or item.key, []).append(orjson.loads(item.value_json))
        if record.HasField("run"):
            named = (record.run.project, record.run.display_name, record.run.run_id)
            assert named == ("mills", "mine", outcome.folder.name)
    assert seen["tune/step"] == [*range(1, 41), 40] and rows == list(range(41))
    assert seen["tune/loss"] == [pytest.approx(1 / n) for n in range(1, 41)] and seen["tune/eval_loss"] == [0.25]


def wandb_ended(path: Path) -> list[Any]:
    """All records. Its service writes on after `finish` has returned; a process that exits waits for it."""
    deadline = time.monotonic() + 20
    while "exit" not in {record.WhichOneof("record_type") for record in wandb_records(path)}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return list(wandb_records(path))


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of an offline run: LevelDB's log format behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    raw, block, at, parts = path.read_bytes(), 32768, 7, b""
    while at + 7 <= len(raw):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, length, kind = struct.unpack("<IHB", raw[at : at + 7])
        parts += raw[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield Record.FromString(parts)
            parts = b""


def test_a_sink_of_another_package_gets_every_step_once_over_two_attempts(project: Project) -> None:
    path = project.folder / "ledger.txt"
    sinks = {"ledger": {"path": str(path)}}
    go(project, sinks, stop_at=25)
    go(project, sinks, stop_at=25)
    lines = path.read_text().splitlines()
    steps = [line.split()[1] for line in lines if line.startswith("tune") and "loss" in line]
    assert steps == [*map(str, range(1, 41)), "40"]
    assert [line for line in lines if not line.startswith("tune")] == [
        "cancelled ['report.html']",
        "finished ['report.html']",
    ]


def test_the_sink_of_the_docs_works_as_it_stands(project: Project) -> None:
    path = project.folder / "points.txt"
    assert warnings(go(project, {"file": {"path": str(path)}}, steps=2)) == []
    assert path.read_text().splitlines()[1:] == [
        "tune 1 {'loss': 1.0, 'lr': 0.1}",
        "tune 2 {'loss': 0.5, 'lr': 0.1}",
        "tune 2 {'eval_loss': 0.25}",
    ]


def test_a_sink_that_dies_midway_is_said_once_and_its_gap_is_filled_later(project: Project) -> None:
    path = project.folder / "ledger.txt"
    stopped = go(project, {"ledger": {"path": str(path), "break_at": 10}}, stop_at=25)
    assert stopped.state == "cancelled"
    [said] = warnings(stopped)
    assert said == "the sink ledger failed, and the run goes on without it: ValueError: the ledger is full"
    assert "the ledger is full" in (stopped.folder / "log.ndjson").read_text()
    assert Watch(Workspace(project.workspace), "mine").state()["warnings"] == [said]
    assert "the run goes on without it" in project.run("status", "mine").stdout
    path.write_text("")
    mended = go(project, {"ledger": {"path": str(path)}}, stop_at=25)
    assert mended.state == "finished" and mended.folder == stopped.folder
    steps = [line.split()[1] for line in path.read_text().splitlines() if "'loss'" in line]
    assert steps == list(map(str, range(1, 41)))


def test_a_slow_sink_holds_nobody_up_and_what_it_lost_is_said(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "WAITING", 50)
    monkeypatch.setattr(following, "LAST_WORDS", 0.2)
    path = project.folder / "ledger.txt"
    outcome = go(project, {"ledger": {"path": str(path), "wait": 2.0}}, steps=3000)
    assert outcome.state == "finished"
    stage = next(e for e in read_events(outcome.folder / "events.ndjson") if e["event"] == "stage.finished")
    assert stage["seconds"] < 1.5
    assert any("did not end in 0.2 s" in said for said in warnings(outcome))


def test_what_cannot_be_opened_is_said_before_anything_runs(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        go(project, {"ledger": {"path": str(project.folder / "none" / "x")}})
    assert not list(project.workspace.glob("runs/*/events.ndjson"))
    with pytest.raises(ConfigError, match="cannot be reached"):
        go(project, {"mlflow": {"uri": "http://127.0.0.1:9"}})
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="online needs a key"):
        go(project, {"wandb": {"mode": "online"}})
    monkeypatch.setattr("gristmill.runs.sinks.kinds.missing", lambda extra: [extra])
    with pytest.raises(ConfigError, match="tensorboard is not installed") as gone:
        go(project, {"tensorboard": {}})
    assert gone.value.hint == "pip install 'gristmill[tensorboard]'"


def test_check_looks_at_the_sinks_too(project: Project) -> None:
    recipe = project.write(
        "r.yaml",
        "name: x\nsinks: {mlflow: {uri: 'http://127.0.0.1:9'}}\n"
        "stages: {read: {kind: ingest.read, paths: [documents]}}\n",
    )
    said = project.run("check", recipe, code=2).stderr
    assert "sinks.mlflow: http://127.0.0.1:9 cannot be reached" in said and "--set sinks.mlflow=null" in said
    assert "is sound" in project.run("check", recipe, "--set", "sinks.mlflow=null").stdout


@pytest.mark.parametrize(
    ("sinks", "said"),
    [
        ({"tensorbord": {}}, "unknown sink `tensorbord`"),
        ({"mlflow": {"uri": "sqlite:///m.db"}}, "neither a server nor a folder"),
        ({"wandb": {"api_key": PLAIN}}, "`api_key` is a secret: write env:NAME"),
        ({"wandb": {"mode": "somewhere"}}, "mode"),
        ({"tensorboard": {"floder": "x"}}, "unknown key `floder`"),
    ],
)
def test_settings_are_strict(project: Project, sinks: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as wrong:
        make_plan(written(project, sinks))
    assert said in str(wrong.value)


def test_sinks_are_no_part_of_what_a_run_is(project: Project) -> None:
    first = go(project, {}, steps=3)
    again = go(project, {"tensorboard": {}}, steps=3)
    assert again.state == "shown" and again.folder == first.folder
