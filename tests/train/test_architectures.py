"""Every family reads packed sequences as if each were alone: loss and every gradient are those of transformers' own
model, one sequence at a time. Those that cannot be packed say so and are read one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from gristmill.core.errors import ConfigError
from gristmill.models.load import load_model
from gristmill.models.lora import LoraConfig, attach
from gristmill.models.weights import locate
from gristmill.train.attention import Backbone
from gristmill.train.loss import head_of, linear_cross_entropy

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "initializer_range": 0.2,
}  # fmt: skip
LENGTHS = (19, 1, 12, 30)
WINDOW = {"sliding_window": 7, "layer_types": ["sliding_attention", "full_attention"]}
NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "dropout": 0.0, "attention_dropout": 0.0}
PACKED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, biases and linear rotary scaling": (
        "llama",
        {"attention_bias": True, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    ),
    "qwen2": ("qwen2", {}),
    "qwen2, windows": ("qwen2", {"use_sliding_window": True, **WINDOW}),
    "qwen3": ("qwen3", {"head_dim": 8}),
    "qwen3_moe": ("qwen3_moe", {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, window": ("mistral", {"sliding_window": 5}),
    "mixtral": ("mixtral", {"num_local_experts": 4}),
    "gemma": ("gemma", {"head_dim": 8}),
    "gemma2, window, caps": (
        "gemma2",
        {"head_dim": 8, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, **WINDOW},
    ),
    "gemma3": ("gemma3_text", {"head_dim": 8, **WINDOW}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, **NO_DROPOUT}),
    "gpt_neox": ("gpt_neox", {}),
    "opt": ("opt", {"ffn_dim": 48, "word_embed_proj_dim": 32, **NO_DROPOUT}),
    "phi, bias on the head": ("phi", NO_DROPOUT),
    "phi3, window": ("phi3", {"sliding_window": 6, "resid_pdrop": 0.0}),
    "olmo2": ("olmo2", {}),
    "granite, scales": (
        "granite",
        {"logits_scaling": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5, "embedding_multiplier": 2.0},
    ),
    "cohere, scale": ("cohere", {"logit_scale": 0.3}),
    "cohere2, window": ("cohere2", {"logit_scale": 0.3, **WINDOW}),
    "smollm3": ("smollm3", {}),
    "starcoder2, window": ("starcoder2", {"sliding_window": 6, "residual_dropout": 0.0, "embedding_dropout": 0.0}),
}  # fmt: skip
ALONE: dict[str, tuple[str, dict[str, Any]]] = {
    "gptj, bias on the head": ("gptj", {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, **NO_DROPOUT}),
    "bloom": ("bloom", {"n_layer": 2, "n_head": 4, "hidden_dropout": 0.0}),
    "mpt": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}),
    "gpt_oss, sinks": ("gpt_oss", {"head_dim": 8, "num_local_experts": 4, **WINDOW}),
    "stablelm": ("stablelm", NO_DROPOUT),
    "llama4, chunks": (
        "llama4_text",
        {"head_dim": 8, "num_local_experts": 2, "attention_chunk_size": 8, "intermediate_size_mlp": 48},
    ),
}


def _model(kind: str, changes: dict[str, Any]) -> Any:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**{**SMALL, **changes}), dtype=torch.float32)
    for p in model.parameters():  # biases, too, begin as something
        if p.ndim == 1:
            torch.nn.init.normal_(p, 1.0 if bool((p == 1).all()) else 0.0, 0.1)
    return model.train()


def _tokens() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 97, (sum(LENGTHS),), generator=generator)
    mask = torch.rand(sum(LENGTHS), generator=generator) < 0.7
    return ids, mask


def _grads(model: Any, loss: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss.backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def _theirs(model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    ids, mask = _tokens()
    total, loss = 0, torch.zeros(())
    for part, kept in zip(ids.split(LENGTHS), mask.split(LENGTHS), strict=True):
        labels = part[1:].masked_fill(~kept[1:], -100)
        logits = model(input_ids=part[None]).logits[0, :-1]
        loss = loss + F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
        total += int(kept[1:].sum())
    return _grads(model, loss / total)


def _ours(model: Any, backbone: Backbone) -> tuple[float, dict[str, torch.Tensor]]:
    ids, mask = _tokens()
    positions = torch.cat([torch.arange(n) for n in LENGTHS])
    wanted = (mask & (positions > 0)).nonzero()[:, 0]
    hidden = backbone(ids, positions, LENGTHS)
    loss = linear_cross_entropy(hidden[wanted - 1], head_of(model), ids[wanted], total=len(wanted))
    return _grads(model, loss)


def _same(ours: tuple[float, dict[str, torch.Tensor]], theirs: tuple[float, dict[str, torch.Tensor]]) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    whole = torch.stack([g.norm() for g in theirs[1].values()]).norm()
    for name, grad in theirs[1].items():
        apart = (ours[1][name] - grad).norm() / torch.maximum(grad.norm(), 1e-3 * whole)
        assert apart < 1e-5, f"{name}: {apart:.1e}"


@pytest.mark.parametrize("name", PACKED)
def test_packed_is_transformers_own_model_one_at_a_time(name: str) -> None:
    model = _model(*PACKED[name])
    theirs = _theirs(model)
    backbone = Backbone(model, context=64)
    assert backbone.packs, backbone.why
    _same(_ours(model, backbone), theirs)


@pytest.mark.parametrize("name", ALONE)
def test_what_cannot_be_packed_is_read_one_at_a_time_and_says_why(name: str) -> None:
    model = _model(*ALONE[name])
    theirs = _theirs(model)
    backbone = Backbone(model, context=64)
    assert not backbone.packs and backbone.why
    _same(_ours(model, backbone), theirs)


def test_state_between_tokens_is_found_by_trying() -> None:
    model = _model("mamba", {"state_size": 4, "expand": 2})
    backbone = Backbone(model, context=64)
    assert (backbone.packs, backbone.why) == (False, "packed sequences would change each other")
    assert model.training


def test_a_head_of_its_own_kind_is_refused() -> None:
    model = _model("llama", {})
    forward = model.lm_head.forward
    model.lm_head.forward = lambda hidden: torch.roll(forward(hidden), 1, dims=-1)
    with pytest.raises(ConfigError, match="makes its logits"):
        Backbone(model, context=64)
    with pytest.raises(ConfigError, match="makes its logits"):
        Backbone(_model("bert", {"is_decoder": True}), context=64)


def test_a_model_generates_with_its_own_attention() -> None:
    model = _model("llama", {}).eval()
    ids = _tokens()[0][None, :6]
    before = model.generate(ids, max_new_tokens=5, do_sample=False)
    backbone = Backbone(model, context=64)
    with backbone.own_attention():
        assert torch.equal(model.generate(ids, max_new_tokens=5, do_sample=False), before)
    assert model.config._attn_implementation == "gristmill_packed"


def test_the_embedded_model_with_adapters_in_16_bits_is_read_packed() -> None:
    """What the demo trains: rounding through thirty layers is no leak."""
    model = load_model(locate("smollm2-135m-instruct", base=Path("/")), dtype="bfloat16")
    backbone = Backbone(attach(model, LoraConfig(r=8, alpha=16)), context=512)
    assert (backbone.packs, backbone.why) == (True, "")
