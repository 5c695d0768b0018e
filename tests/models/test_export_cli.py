"""`gristmill export` of a trained run: every form, its card, its proof; whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.fakes.hub import fake_hub
from tests.runs.project import PLACES, Project
from tests.train.conftest import make_model_folder

from gristmill.models.checkpoint import verify
from gristmill.models.gguf_file import read_gguf
from gristmill.models.renderer import Renderer
from gristmill.models.weights import at_folder

pytestmark = pytest.mark.slow
TEMPLATE = "{% for m in messages %}{{'<|note|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'}}{% endfor %}" + (
    "{% if add_generation_prompt %}{{ '<|note|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, dict[str, Any]]:
    """A run that trains the tiny model twice: adapters, and adapters with new tokens and another template."""
    project = Project(tmp_path_factory.mktemp("taught"))
    project.add(*PLACES[:3])
    (project.folder / "student").mkdir()
    make_model_folder(project.folder / "student")
    project.write("note.jinja", TEMPLATE)
    tune = {"kind": "train.sft", "model": "student", "context": 128, "batch": 256, "steps": 3, "threads": 1}
    tune |= {"lora": {"r": 4, "alpha": 8}, "learning_rate": 0.02, "dtype": "fp32", "needs": ["talks"]}
    stages = {
        "read": {"kind": "ingest.read", "paths": ["documents"]},
        "chunks": {"kind": "ingest.chunk", "tokens": 60},
        "cloze": {"kind": "generate.cloze"},
        "talks": {"kind": "curate.dedup", "near": False},
        "tune": tune,
        "wider": {**tune, "new_tokens": ["<|note|>", "lighthouse of"], "chat_template": "note.jinja"},
    }
    models = {"student": {"provider": "local", "model": "student"}}
    recipe = {"name": "little", "seed": 3, "models": models, "stages": stages}
    project.write("recipe.yaml", yaml.safe_dump(recipe, sort_keys=False))
    return project, project.go("--name", "taught")


def export(project: Project, to: Path, kind: str, *more: str, code: int = 0) -> Any:
    stage = [] if "--stage" in more else ["--stage", "tune"]
    return project.run("export", "taught", "--format", kind, "--to", to, *stage, *more, code=code)


def front(folder: Path) -> tuple[dict[str, Any], str]:
    _, head, body = (folder / "README.md").read_text("utf-8").split("---\n", 2)
    return yaml.safe_load(head), body


def test_a_folder_with_its_card_and_lineage(taught: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    project, outcome = taught
    to = tmp_path / "out"
    export(project, to, "hf", "--dtype", "bf16")
    manifest = verify(to)
    trained = verify(Path(outcome["folder"]) / "checkpoints/tune")
    assert manifest.metadata["exported_from"] == trained.sha256 and manifest.step == 3
    assert json.loads((to / "config.json").read_text())["dtype"] == "bfloat16"
    head, body = front(to)
    assert head["library_name"] == "transformers" and "gristmill" in head["tags"]
    for said in (
        "the same logits to the bit",
        "documents/orvale.md",
        outcome["run"],
        trained.sha256,
        "chat/cloze",
        "tune",
    ):
        assert said in body or said.removeprefix("documents/") in body, said
    assert str(project.folder) not in body
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert "not empty" in export(project, to, "hf", code=2).stderr


@pytest.mark.parametrize("quantization", ["q8_0"])
def test_a_gguf_with_its_modelfile(taught: tuple[Project, dict[str, Any]], quantization: str, tmp_path: Path) -> None:
    export(taught[0], tmp_path / "out", "gguf", "--quantization", quantization, "--stage", "wider")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"README.md", "Modelfile", f"taught-{quantization}.gguf"}
    said = read_gguf(tmp_path / "out" / f"taught-{quantization}.gguf")
    assert said.get("tokenizer.ggml.tokens")[-2:] == ["<|note|>", "lighthouse of"]
    assert "<|note|>" in (tmp_path / "out/Modelfile").read_text() and "ollama create" in front(tmp_path / "out")[1]


def test_adapters_for_peft_and_for_llama_cpp(taught: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    project, _ = taught
    export(project, tmp_path / "peft", "lora", "--stage", "wider")
    verify(tmp_path / "peft")
    assert "resize_token_embeddings" in front(tmp_path / "peft")[1]
    assert json.loads((tmp_path / "peft/adapter_config.json").read_text())["base_model_name_or_path"] == "student"
    export(project, tmp_path / "gguf", "lora-gguf")
    assert read_gguf(tmp_path / "gguf/taught-lora.gguf").get("general.type") == "adapter"
    refused = export(project, tmp_path / "no", "lora-gguf", "--stage", "wider", code=2)
    assert "rows of new tokens" in refused.stderr and not (tmp_path / "no").exists()


def test_a_tokenizer_alone(taught: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    export(taught[0], tmp_path / "out", "tokenizer", "--stage", "wider")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {"tokenizer.json", "vocab.json", "merges.txt", "chat_template.jinja", "README.md"} <= names
    assert (tmp_path / "out/chat_template.jinja").read_text() == TEMPLATE


def test_the_exam_and_the_server_read_what_training_read(taught: tuple[Project, dict[str, Any]]) -> None:
    project, outcome = taught
    trained = Renderer.load(at_folder(Path(outcome["folder"]) / "checkpoints/wider"))
    base = Renderer.load(at_folder(project.folder / "student"))
    expected = base.extended(["<|note|>", "lighthouse of"], template=TEMPLATE)
    assert trained.template_hash == expected.template_hash != base.template_hash


def test_a_changed_model_does_not_leave(taught: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    """Each gate sees a tensor that is not the trained one, and leaves nothing."""
    project, outcome = taught
    weights = Path(outcome["folder"]) / "checkpoints/tune.adapter/adapter_model.safetensors"
    whole = weights.read_bytes()
    copy = weights.with_suffix(".new")
    copy.write_bytes(whole[:-1] + bytes([whole[-1] ^ 64]))
    before = weights.rename(weights.parent.with_suffix(".old"))
    copy.rename(weights)
    for kind in ("lora", "lora-gguf"):
        assert "is not what was written" in export(project, tmp_path / kind, kind, code=6).stderr
    weights.unlink()
    before.rename(weights)
    assert not list(tmp_path.iterdir())


def test_options_that_would_do_nothing_are_refused(taught: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    project, _ = taught
    for wrong in (
        ["hf", "--quantization", "f16"],
        ["gguf", "--dtype", "bf16"],
        ["text", "--push", "a/b"],
        ["hf", "--private"],
    ):
        assert (
            "belongs to" in (said := export(project, tmp_path / "x", *wrong, code=2).stderr) or "sends models" in said
        )
    assert not (tmp_path / "x").exists()


def test_it_is_sent_to_a_hub_on_demand_alone(taught: tuple[Project, dict[str, Any]], tmp_path: Path) -> None:
    project, _ = taught
    with fake_hub(token="let-me-in") as hub:
        here = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": hub.token}
        to = tmp_path / "out"
        project.run("export", "taught", "--format", "tokenizer", "--to", to, "--stage", "tune", **here)
        assert not hub.requests
        pushed = ("--format", "hf", "--to", tmp_path / "hf", "--stage", "tune", "--push", "someone/taught", "--private")
        said = project.run("export", "taught", *pushed, **here).stdout
        sent = hub.repositories["someone/taught"]
        [(commit, files)] = sent.commits
        assert sent.private and commit in said
        assert files == {path.name: path.read_bytes() for path in (tmp_path / "hf").iterdir()}


def test_the_recipe_with_new_tokens_runs(tmp_path: Path) -> None:
    project = Project(tmp_path)
    (tmp_path / "student").mkdir()
    make_model_folder(tmp_path / "student")
    recipe = Path(__file__).parents[2] / "recipes" / "new_tokens.yaml"
    changes = [f"models.student.model={tmp_path}/student", "stages.tune.tokens=500", "stages.tune.context=128"]
    sets = [part for change in changes for part in ("--set", change)]
    outcome = json.loads(project.run("run", recipe, "--json", "--name", "words", *sets).stdout)
    renderer = Renderer.load(at_folder(Path(outcome["folder"]) / "checkpoints/tune"))
    assert renderer.encode("the lighthouse keeper").count(401) == 1
    project.run("export", "words", "--format", "gguf", "--to", tmp_path / "out")
    assert read_gguf(tmp_path / "out/words-f16.gguf").get("tokenizer.ggml.tokens")[400:] == [
        "<|note|>",
        "lighthouse keeper",
    ]
