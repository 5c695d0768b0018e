"""The whole way of weights: load, adapt, merge, write, export, and the gate that lets only the same model pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.models.chat_models import smol

from gristmill.core.errors import CheckpointError, ConfigError
from gristmill.core.records import Message
from gristmill.models import checkpoint
from gristmill.models.convert import convert
from gristmill.models.gate import prove_same
from gristmill.models.gguf import base_of, prepare
from gristmill.models.gguf_file import read_gguf
from gristmill.models.load import load_model
from gristmill.models.lora import LoraConfig, attach
from gristmill.models.merge import write_merged
from gristmill.models.renderer import Renderer
from gristmill.models.weights import Weights, at_folder


@pytest.fixture(autouse=True, scope="module")
def _few_threads() -> Iterator[None]:
    torch.set_num_threads(2)
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """The embedded model with an adapter that changes it a little, merged and written."""
    torch.manual_seed(3)
    adapters = LoraConfig(r=4, alpha=4, targets=["q_proj", "v_proj", "down_proj"])
    model = attach(load_model(smol(), dtype="float32"), adapters)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.copy_(torch.randn_like(parameter) * 0.02)
    folder = tmp_path_factory.mktemp("trained") / "model"
    write_merged(model, folder, renderer=Renderer.load(smol()), base=smol(), metadata={"step": 7})
    ids = torch.tensor([prompt()])
    merged = load_model(at_folder(folder), dtype="float32")
    assert torch.allclose(merged(ids).logits, model(ids).logits, atol=2e-3)
    return at_folder(folder)


def prompt() -> list[int]:
    question = Message(role="user", content="What is the capital of France?")
    return Renderer.load(smol()).chat([question], generate=True).ids


def test_the_embedded_model_loads_and_answers() -> None:
    model = load_model(smol(), dtype="float32")
    out = model.generate(torch.tensor([prompt()]), max_new_tokens=8, do_sample=False)[0].tolist()
    assert "Paris" in Renderer.load(smol()).decode(out[len(prompt()) :])


def test_adapters_are_float32_on_a_bfloat16_base_and_names_are_checked() -> None:
    base = load_model(smol(), dtype="bfloat16")
    with pytest.raises(ConfigError, match="no_such_proj"):
        attach(base, LoraConfig(targets=["no_such_proj"]))
    model = attach(base, LoraConfig(r=2))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_a_written_model_is_a_checkpoint_that_knows_its_base(trained: Weights) -> None:
    manifest = checkpoint.verify(trained.path)
    assert trained.form == "checkpoint" and manifest.step == 7
    assert manifest.metadata["template"] == Renderer.load(trained).template_hash
    origin = base_of(trained)
    assert origin is not None and origin.sha256 == smol().sha256


def test_a_damaged_model_is_not_loaded(trained: Weights, tmp_path: Path) -> None:
    for file in trained.path.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not what was written"):
        load_model(at_folder(tmp_path))


def test_an_export_passes_the_gate_and_another_model_does_not(trained: Weights, tmp_path: Path) -> None:
    exported = prepare(trained, quantization="q8_0", cache=tmp_path)
    made = exported.stat().st_mtime_ns
    assert prepare(trained, quantization="q8_0", cache=tmp_path) == exported
    assert exported.stat().st_mtime_ns == made
    ours, base = read_gguf(exported), read_gguf(smol().path)
    same = {k: v for k, v in base.values.items() if k != "general.file_type"}
    assert {k: v for k, v in ours.values.items() if k != "general.file_type"} == same
    proof = prove_same(trained, exported)
    assert proof.prompts == 8 and proof.tensors == len(ours.tensors) and proof.tokens > 80 and proof.agreement >= 0.9
    other = prepare(smol(), quantization="q8_0", cache=tmp_path)
    assert other != exported
    with pytest.raises(CheckpointError, match="is not the trained model"):
        prove_same(trained, other)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_gguf_stays_itself_when_nothing_is_asked_of_it(tmp_path: Path) -> None:
    assert prepare(smol(), quantization=None, cache=tmp_path) == smol().path


@pytest.mark.slow
def test_tensors_are_those_that_transformers_reads() -> None:
    from transformers import AutoModelForCausalLM

    weights = smol()
    theirs = AutoModelForCausalLM.from_pretrained(
        weights.path.parent, gguf_file=weights.path.name, dtype=torch.float32
    ).state_dict()
    ours = load_model(weights, dtype="float32").state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.slow
def test_a_model_that_never_was_a_gguf_is_written_as_the_converter_writes_it(trained: Weights, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    for file in trained.path.iterdir():
        if file.name != "manifest.json":
            (folder / file.name).write_bytes(file.read_bytes())
    weights = at_folder(folder)
    assert weights.form == "hf"
    own = prepare(weights, quantization="q8_0", cache=tmp_path / "cache")
    converted = tmp_path / "converted.gguf"
    convert(folder, converted, "q8_0", tmp_path / "cache")
    for key in ("model", "pre", "tokens", "merges", "eos_token_id"):
        name = f"tokenizer.ggml.{key}"
        assert read_gguf(own).get(name) == read_gguf(converted).get(name), key
    kept = prepare(trained, quantization="q8_0", cache=tmp_path / "cache")
    a, b = read_gguf(converted), read_gguf(kept)
    read = {f.path: f.path.read_bytes() for f in (a, b)}
    for name, place in a.tensors.items():
        other = b.tensors[name]
        size = place.elements // 32 * 34 if len(place.shape) == 2 else place.elements * 4
        mine, theirs = (read[f.path][p.offset : p.offset + size] for f, p in ((a, place), (b, other)))
        assert mine == theirs, name
    prove_same(weights, own)
