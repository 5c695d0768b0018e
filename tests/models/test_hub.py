"""Models of a hub: fetched when asked for and never otherwise, pinned, whole; sent when asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.fakes.hub import FakeHub, Repository, fake_hub
from tests.models.tiny import tiny_weights
from tests.runs.project import Project

from gristmill.core.errors import ConfigError
from gristmill.core.records import Message
from gristmill.models import hub as cache
from gristmill.models.gguf import prepare
from gristmill.models.load import load_model
from gristmill.models.renderer import Renderer
from gristmill.models.weights import Weights, locate

NAME = "someone/little"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return tiny_weights(tmp_path_factory.mktemp("model"))


@pytest.fixture
def hub(model: Weights) -> Iterator[FakeHub]:
    with fake_hub() as served:
        repository = served.repositories[NAME] = Repository()
        files = {path.name: path.read_bytes() for path in model.path.iterdir()}
        repository.tags["v1"] = repository.commit({**files, "pytorch_model.bin": b"x", "modeling.py": b"x"})
        repository.commit({"generation_config.json": b'{"eos_token_id": 0}'})
        yield served


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    return Project(tmp_path)


def online(hub: FakeHub) -> dict[str, str]:
    return {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_HOME": "/nonexistent"}


def test_a_model_is_fetched_when_asked_and_pinned(hub: FakeHub, project: Project, model: Weights) -> None:
    recipe = {
        "name": "r",
        "models": {"student": {"provider": "local", "model": f"hub:{NAME}@v1"}},
        "stages": {
            "read": {"kind": "ingest.read", "paths": ["documents"]},
            "chunks": {"kind": "ingest.chunk"},
            "passages": {"kind": "generate.passage"},
            "tune": {"kind": "train.sft", "model": "student", "context": 64},
        },
    }
    project.add("Orvale")
    project.write("recipe.yaml", yaml.safe_dump(recipe, sort_keys=False))
    said = project.run("check", project.folder / "recipe.yaml", code=2, **online(hub))
    assert f"gristmill models get hub:{NAME}@v1" in said.stdout + said.stderr and not hub.requests
    project.run("models", "get", f"hub:{NAME}@v1", **online(hub))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {*hub.downloads()}
    assert not {"pytorch_model.bin", "modeling.py"} & {*hub.downloads()}
    before = len(hub.requests)
    project.run("check", project.folder / "recipe.yaml", **online(hub))
    found = locate(f"hub:{NAME}@v1", base=Path())
    assert len(hub.requests) == before
    commit = hub.repositories[NAME].tags["v1"]
    assert found.source == f"hub:{NAME}@{commit}" and locate(found.source, base=Path()) == found
    assert (found.path / "model.safetensors").read_bytes() == (model.path / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="has not been fetched"):
        locate(f"hub:{NAME}", base=Path())
    (found.path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="are not those that were fetched"):
        locate(f"hub:{NAME}@v1", base=Path())


@pytest.mark.slow
def test_a_killed_fetch_leaves_no_model_and_is_taken_up(hub: FakeHub, project: Project) -> None:
    hub.slow = 20_000
    command = project.command("models", "get", f"hub:{NAME}")
    process = subprocess.Popen(command, env={**os.environ, **online(hub)}, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if "model.safetensors" in hub.downloads():
            break
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cache.find(f"hub:{NAME}") is None
    hub.slow = None
    project.run("models", "get", f"hub:{NAME}", **online(hub))
    assert locate(f"hub:{NAME}", base=Path()).sha256 == cache.require(f"hub:{NAME}").sha256


def test_what_cannot_be_fetched_says_why(hub: FakeHub, project: Project) -> None:
    hub.repositories["someone/pickled"] = pickled = Repository()
    pickled.commit({"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"x"})
    assert "no safetensors" in project.run("models", "get", "hub:someone/pickled", code=2, **online(hub)).stderr
    assert not hub.downloads()
    assert "does not give" in project.run("models", "get", "hub:someone/nothing", code=4, **online(hub)).stderr
    for wrong in ("hub:little", "hub:../little"):
        with pytest.raises(ConfigError, match="names no model"):
            cache.find(wrong)


@pytest.mark.slow
def test_a_folder_is_sent_as_one_commit(hub: FakeHub, model: Weights, tmp_path: Path) -> None:
    hub.token = "let-me-in"
    code = (
        "import sys; from pathlib import Path\n"
        "from gristmill.models.hub_transfer import push\n"
        "print(push(Path(sys.argv[1]), 'someone/sent', private=True))"
    )
    command = [sys.executable, "-c", code, str(model.path)]
    environment = {**os.environ, **online(hub)}
    refused = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "the hub refuses" in refused.stderr and "someone/sent" not in hub.repositories
    done = subprocess.run(
        command, env={**environment, "HF_TOKEN": hub.token}, capture_output=True, text=True, check=True
    )
    sent = hub.repositories["someone/sent"]
    [(commit, files)] = sent.commits
    assert commit in done.stdout and sent.private
    assert files == {path.name: path.read_bytes() for path in model.path.iterdir()}


LONG = [pytest.param(form, marks=pytest.mark.slow) for form in ("catalogue", "hub")]


@pytest.mark.parametrize("form", ["folder", "shards", "gguf", *LONG])
def test_models_of_every_origin_load_and_read_the_same(
    form: str, hub: FakeHub, project: Project, model: Weights, tmp_path: Path
) -> None:
    if form == "catalogue":
        found = locate("smollm2-135m-instruct", base=tmp_path)
    elif form == "folder":
        found = locate(str(model.path), base=tmp_path)
    elif form == "shards":
        found = tiny_weights(tmp_path / "shards", shards="100KB")
        assert len([*found.path.glob("*.safetensors")]) > 2
    elif form == "gguf":
        found = locate(str(prepare(model, quantization="f16", cache=tmp_path)), base=tmp_path)
    else:
        project.run("models", "get", f"hub:{NAME}", **online(hub))
        found = locate(f"hub:{NAME}", base=tmp_path)
    import torch

    renderer, loaded = Renderer.load(found), load_model(found, dtype="bfloat16")
    talk = renderer.chat([Message(role="user", content="When was the mill built?")], generate=True)
    with torch.inference_mode():
        logits = loaded(torch.tensor([talk.ids])).logits
    assert logits.isfinite().all() and logits.dtype == torch.bfloat16
    if form != "catalogue":
        assert (
            talk.ids
            == Renderer.load(model).chat([Message(role="user", content="When was the mill built?")], generate=True).ids
        )
        with torch.inference_mode():
            expected = load_model(model, dtype="bfloat16")(torch.tensor([talk.ids])).logits
        assert (logits - expected).abs().max() < (0.3 if form == "gguf" else 1e-6)
