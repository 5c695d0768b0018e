"""A run made again from its manifest: nobody is asked, everything is computed anew, and what differs is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.fakes.fixtures import fake_server
from tests.runs.project import PLACES, Project
from tests.train.conftest import make_model_folder

from gristmill.core.errors import InputError
from gristmill.core.records import Sample
from gristmill.runs.differences import weights_difference
from gristmill.runs.execute import execute
from gristmill.runs.folder import RunFolder
from gristmill.runs.manifest import installed, lock_of
from gristmill.runs.plan import make_plan
from gristmill.runs.verify import Verified, verify
from gristmill.runs.workspace import Workspace

TUNE = {"kind": "train.sft", "model": "student", "context": 128, "batch": 256, "steps": 3, "threads": 1}
TUNE |= {"lora": {"r": 4, "alpha": 8}, "warmup_steps": 1, "needs": ["clean"]}
AROUND = ("threads", "processes", "strategy", "compile", "device", "forward", "checkpointing")

pytestmark = pytest.mark.usefixtures("reader")


@dataclass
class Made:
    """A finished run that trained, in a workspace that a test may damage; its model server is gone."""

    project: Project
    workspace: Workspace
    folder: RunFolder

    def verify(self, **options: Any) -> Verified:
        return verify(self.workspace, self.folder, **options)

    def rewrite(self, stage: str, place: int, **columns: Any) -> None:
        """Another value in a record at rest."""
        [path] = self.folder.path.glob(f"stages/*-{stage}/records.parquet")
        table = pq.read_table(path)
        rows = table.to_pylist()
        rows[place] |= columns
        pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    project = Project(tmp_path_factory.mktemp("verified"))
    project.add(*PLACES[:3])
    (project.folder / "student").mkdir()
    make_model_folder(project.folder / "student")
    with fake_server(refuse="Tessmoor carries") as fake:  # a record that fails for good
        writer = {"provider": "openai", "base_url": fake.url, "model": "m"}
        models = {"writer": writer, "student": {"provider": "local", "model": "student"}}
        path = project.recipe(fake.url, models=models, stages={"tune": TUNE}, budget={"calls": 50})
        workspace = Workspace(project.workspace)
        outcome = execute(make_plan(path), workspace, name="whole")
        workspace.store.close()
    assert outcome.state == "finished" and outcome.summary["funnel"]["facts"]["failed"], outcome.error
    return Made(project, workspace, RunFolder(outcome.folder))


@pytest.fixture
def made(whole: Made, tmp_path: Path) -> Iterator[Made]:
    """A copy of it; the files of its weights are its own."""
    shutil.copytree(whole.workspace.root, tmp_path / "ws")
    workspace = Workspace(tmp_path / "ws")
    yield Made(whole.project, workspace, RunFolder(workspace.find_run("whole")))
    workspace.store.close()


def verdicts(found: Verified) -> dict[str, str]:
    return {stage.stage: stage.verdict for stage in found.stages}


def test_a_run_is_made_again_to_the_byte_and_nothing_is_left_or_paid(made: Made) -> None:
    before = {p.name for p in made.workspace.root.iterdir()}
    spent = made.workspace.store.spent(made.folder.path.name)
    found = made.verify()
    assert found.identical and found.error() is None and set(verdicts(found).values()) == {"identical"}
    by_name = {stage.stage: stage for stage in found.stages}
    assert by_name["facts"].rejects == 1 and by_name["clean"].records > 5 and by_name["tune"].files >= 5
    assert found.changes.inputs == found.changes.models == {}
    assert made.workspace.store.spent(made.folder.path.name) == spent
    assert {p.name for p in made.workspace.root.iterdir()} - {"store.db-shm", "store.db-wal"} == before


def test_a_record_that_was_tampered_with_is_named_with_what_it_was(made: Made) -> None:
    [path] = made.folder.path.glob("stages/*-cloze/records.parquet")
    body = pq.read_table(path)["body"][2].as_py()
    made.rewrite("cloze", 2, body=body.replace("missing", "hidden"))
    found = made.verify(stage="clean")
    assert [name for name, verdict in verdicts(found).items() if verdict != "identical"] == ["cloze"]
    [odd] = [stage for stage in found.stages if stage.verdict == "differs"]
    assert odd.first and ("hidden" in odd.first.fields[0][1], "missing" in odd.first.fields[0][2]) == (True, True)
    assert (
        odd.first
        and odd.first.what.startswith("record 3, sample ")
        and odd.first.what.endswith("changed after the run")
    )
    error = found.error()
    assert error and error.exit_code == 6 and "cloze, differs: record 3" in error.message


def test_a_changed_document_is_named_and_what_rests_on_it_is_not_run(made: Made) -> None:
    path = made.project.folder / "documents" / "orvale.md"
    text = path.read_text()
    try:
        path.write_text(text + "\nOne line more.")
        (path.parent / "new.md").write_text("# New")
        found = made.verify(stage="cloze")
    finally:
        path.write_text(text)
        (path.parent / "new.md").unlink()
    assert set(verdicts(found).values()) == {"not reproducible here"}
    assert set(found.changes.inputs) == {"documents/orvale.md", "documents/new.md"}
    assert "documents/orvale.md has changed; documents/new.md is new" in found.stages[0].why[0]
    assert found.stages[-1].why == ("it rests on facts",)


def test_changed_base_weights_block_the_training_alone(made: Made) -> None:
    path = made.project.folder / "student" / "config.json"
    text = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(text), "rms_norm_eps": 1e-3}))
        found = made.verify()
    finally:
        path.write_text(text)
    assert [name for name, verdict in verdicts(found).items() if verdict != "identical"] == ["tune"]
    assert found.stages[-1].why == ("the weights or the address of student have changed",)


def test_weights_that_were_changed_after_the_run_are_named(made: Made, whole: Made) -> None:
    then, now = (one.folder.path / "checkpoints/tune" for one in (made, whole))
    files, same = weights_difference(then, now)
    assert files >= 5 and same is None
    [path] = then.glob("*.safetensors")
    bytes_ = path.read_bytes()
    path.write_bytes(bytes_[:-1] + bytes([bytes_[-1] ^ 1]))
    _, other = weights_difference(then, now)
    assert other and other.since and other.what == "file model.safetensors, was changed after the run"
    path.unlink()
    _, gone = weights_difference(then, now)
    assert gone and gone.fields[0][:2] == ("sha256", "missing")


def test_a_training_in_other_passes_is_not_reproducible_here(made: Made) -> None:
    """How much memory was free decides the passes, and these the last bits."""
    path = made.folder.path / "checkpoints/tune/manifest.json"
    manifest = json.loads(path.read_text())
    assert set(manifest["metadata"]["around"]) == {*AROUND}
    here = manifest["metadata"]["around"]["forward"]
    manifest["metadata"]["around"] |= {"forward": 64, "compile": "on"}
    path.write_text(json.dumps(manifest))
    tune = made.verify().stages[-1]
    assert tune.verdict == "not reproducible here" and tune.first
    assert tune.why == ("compile was on, and is off here", f"forward was 64, and is {here} here")


def test_an_answer_that_is_not_kept_is_an_error_that_names_it(made: Made) -> None:
    made.workspace.store.close()
    for path in made.workspace.root.glob("store.db*"):
        path.unlink()
    empty = Made(made.project, Workspace(made.workspace.root), made.folder)
    found = empty.verify(stage="clean")
    empty.workspace.store.close()
    facts = next(stage for stage in found.stages if stage.stage == "facts")
    assert facts.verdict == "not reproducible here" and verdicts(found)["chunks"] == "identical"
    assert "the store holds no answer of `writer` under " in facts.why[0]


def test_at_the_terminal(made: Made) -> None:
    made.rewrite("chunks", 0, marks='{"odd":1}')
    path = made.folder.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["made_with"]["facts"]["code"] = "other"
    path.write_text(json.dumps(manifest))
    environment = {"GRISTMILL_WORKSPACE": str(made.workspace.root)}
    done = made.project.run("verify", "whole", "--stage", "cloze", "-q", "--keep", code=6, **environment)
    assert "record 1, chunk" in done.stdout and "marks.odd" in done.stdout and "chunks, differs" in done.stderr
    assert "the code that makes it has changed: facts" in done.stdout
    [kept] = made.workspace.root.glob(".verify-*")
    assert f"kept: {kept}" in done.stdout and list(kept.glob("runs/*/stages/*-cloze/records.parquet"))
    told = json.loads(json.dumps(made.verify(stage="chunks").as_json()))
    assert not told["identical"] and told["stages"][-1]["first"]["fields"] == [["marks.odd", "1", "(absent)"]]
    assert kept.exists()  # another verification does not take it for what a killed one left


def test_only_what_is_finished_can_be_verified(made: Made) -> None:
    with pytest.raises(InputError, match="has no stage nothing"):
        made.verify(stage="nothing")
    [stage] = made.folder.path.glob("stages/*-clean/stage.json")
    stage.unlink()
    with pytest.raises(InputError, match="has not finished its stage clean") as caught:
        made.verify()
    assert "--stage" in caught.value.hint


def test_the_manifest_says_what_a_run_was_made_with(made: Made) -> None:
    manifest = made.folder.manifest
    assert set(manifest) >= {"fingerprint", "seed", "base", "models", "inputs", "prompts", "prices", "budget", "stages"}
    last = manifest["attempts"][-1]
    assert set(last["hardware"]) == {"cpu", "vectors", "cores", "memory_gib", "gpus"} and last["os"] and last["python"]
    assert {"torch", "transformers", "peft", "orjson"} <= set(last["packages"]) and last["git"]
    packages = (made.folder.path / "environment" / f"{last['lock']}.txt").read_text().splitlines()
    assert packages == installed() and lock_of(packages) == last["lock"]
    assert any(line.startswith("torch==") for line in packages)
    tune = manifest["made_with"]["tune"]
    assert tune["code"] and set(tune["libraries"]) >= {"torch", "transformers", "peft"}
    assert set(manifest["inputs"]) == {f"documents/{place.lower()}.md" for place in PLACES[:3]}


def test_other_versions_are_told_and_excuse_only_what_differs(made: Made) -> None:
    path = made.folder.path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["made_with"]["cloze"]["code"] = "other"
    manifest["attempts"][-1]["python"] = "3.9.1"
    path.write_text(json.dumps(manifest))
    found = made.verify(stage="cloze")
    assert found.identical and found.changes.environment["python"][0] == "3.9.1"
    made.rewrite("cloze", 0, marks='{"odd":1}')
    assert made.verify(stage="cloze").stages[-1].verdict == "differs"  # no other code explains a damaged record
    made.rewrite("cloze", 0, marks="{}")
    made.rewrite("cloze", 0, **Sample(form="text", kind="odd", text="Nobody wrote this.").to_row())
    cloze = made.verify(stage="cloze").stages[-1]
    assert cloze.verdict == "not reproducible here" and cloze.why == ("the code that makes it has changed",)
    assert cloze.first and "kind" in [name for name, _, _ in cloze.first.fields]
