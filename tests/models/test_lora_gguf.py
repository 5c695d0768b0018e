"""Files for llama.cpp from a tiny model: the merged model, adapters over the base, and the gate before each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.test_tokens import NEW, NOTED, VARIANTS, adapted
from tests.models.tiny import tiny_weights

from gristmill.core.errors import CheckpointError, ConfigError
from gristmill.models.adapter import write_adapter
from gristmill.models.gate import prove_same
from gristmill.models.gguf import describe, prepare
from gristmill.models.gguf_file import read_gguf
from gristmill.models.load import load_model
from gristmill.models.lora_gguf import same_adapter, write_lora
from gristmill.models.merge import write_merged
from gristmill.models.renderer import Renderer
from gristmill.models.tokens import add_rows, renderer_of
from gristmill.models.weights import Weights, at_folder

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
SLOW = pytest.mark.slow
ASKED: dict[str, Any] = {"tokens": 4, "threads": 1}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    return tiny_weights(tmp_path_factory.mktemp("base"))


def trained(base: Weights, folder: Path, *, new: list[str] | None = None, **variant: Any) -> tuple[Weights, Path]:
    renderer = renderer_of(base, new_tokens=new or [], template=NOTED if new else None)
    model = load_model(base)
    add_rows(model, renderer, seed=3, apart=True)
    tuned = adapted(model, **variant)
    write_merged(tuned, folder / "final", renderer=renderer, base=base)
    write_adapter(tuned, folder / "adapter", renderer=renderer, base=base)
    return at_folder(folder / "final"), folder / "adapter"


@pytest.mark.parametrize(
    ("kind", "tied"), [("qwen2", False), *(pytest.param(*c, marks=SLOW) for c in [("llama", True), ("qwen2", True)])]
)
def test_a_folder_becomes_a_gguf_by_its_own_files(kind: str, tied: bool, tmp_path: Path) -> None:
    weights = tiny_weights(tmp_path / "m", kind=kind, tied=tied)
    made = prepare(weights, quantization="f16", cache=tmp_path)
    assert ("output.weight" in read_gguf(made).tensors) is not tied
    assert prove_same(weights, made, **ASKED).tensors == len(read_gguf(made).tensors)
    again = Renderer.load(Weights(made, "gguf", "made"))
    assert again.encode("The mill of 1234!") == Renderer.load(weights).encode("The mill of 1234!")


@pytest.mark.parametrize("quantization", ["q8_0", pytest.param("f16", marks=SLOW)])
def test_new_tokens_and_template_reach_llama_cpp(base: Weights, quantization: Any, tmp_path: Path) -> None:
    tuned, _ = trained(base, tmp_path, new=NEW)
    made = prepare(tuned, quantization=quantization, cache=tmp_path)
    said = read_gguf(made)
    assert said.get("tokenizer.ggml.tokens")[400:] == NEW
    assert said.get("tokenizer.ggml.token_type")[400:] == [3, 4]
    assert said.get("tokenizer.chat_template") == NOTED
    proof = prove_same(tuned, made, **ASKED)  # which reads every added token, and prompts in the new template
    assert proof.tensors == len(said.tensors) and proof.tokens > 3


@pytest.mark.slow
def test_a_descendant_of_a_gguf_takes_its_tokens_along(base: Weights, tmp_path: Path) -> None:
    origin = prepare(base, quantization="f16", cache=tmp_path)
    parent = Weights(origin, "gguf", "origin")
    tuned, _ = trained(parent, tmp_path, new=NEW)
    made = prepare(tuned, quantization="f16", cache=tmp_path, base=parent)
    assert read_gguf(made).get("tokenizer.ggml.tokens")[398:] == [
        *read_gguf(origin).get("tokenizer.ggml.tokens")[398:],
        *NEW,
    ]
    prove_same(tuned, made, **ASKED)


@pytest.mark.parametrize(
    ("variant", "kind"), [("rslora", "llama"), *(pytest.param(v, "qwen2", marks=SLOW) for v in ("lora", "rslora"))]
)
def test_llama_cpp_lays_adapters_over_the_base(variant: str, kind: str, tmp_path: Path) -> None:
    base = tiny_weights(tmp_path / "base", kind=kind)
    tuned, adapter = trained(base, tmp_path, **VARIANTS[variant])
    under = prepare(base, quantization="f16", cache=tmp_path)
    described = describe(base, None)
    assert described is not None
    write_lora(adapter, tmp_path / "lora.gguf", base=described, name="tuned")
    assert same_adapter(adapter, tmp_path / "lora.gguf", base=described) == 2 * 7 * 2
    proof = prove_same(tuned, under, adapter=tmp_path / "lora.gguf", **ASKED)
    assert proof.divergence < 0.02
    with pytest.raises(CheckpointError):
        prove_same(tuned, under, **ASKED)


def test_a_changed_adapter_is_seen(base: Weights, tmp_path: Path) -> None:
    _, adapter = trained(base, tmp_path)
    described = describe(base, None)
    assert described is not None
    path = tmp_path / "lora.gguf"
    write_lora(adapter, path, base=described, name="tuned")
    place = read_gguf(path).tensors["blk.1.attn_q.weight.lora_b"]
    raw = np.memmap(path, dtype=np.uint8, mode="r+")
    raw[place.offset + 8] ^= 1
    raw.flush()
    with pytest.raises(CheckpointError, match=r"blk\.1\.attn_q\.weight\.lora_b differs"):
        same_adapter(adapter, path, base=described)


def test_what_llama_cpp_cannot_add_is_refused(base: Weights, tmp_path: Path) -> None:
    described = describe(base, None)
    assert described is not None
    for name, settings in {"DoRA": {"use_dora": True}, "new tokens": {"new": NEW}}.items():
        _, adapter = trained(base, tmp_path / name.replace(" ", ""), **settings)
        with pytest.raises(ConfigError, match=name):
            write_lora(adapter, tmp_path / "x.gguf", base=described, name="x")
    assert not (tmp_path / "x.gguf").exists()


@pytest.fixture(autouse=True)
def _inference() -> Any:
    with torch.no_grad():
        yield
