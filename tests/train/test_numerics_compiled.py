"""Compiled layers say what eager ones say, for every shape of pass; `auto` compiles nothing on a CPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from gristmill.models.lora import LoraConfig, attach
from gristmill.train.attention import Backbone
from gristmill.train.compiled import compile_layers
from gristmill.train.loss import head_of, linear_cross_entropy

PASSES = ((30, 20, 5), (9, 40), (64,), (11, 12, 13, 14))


def _model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=90, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.1,
    )  # fmt: skip
    return attach(LlamaForCausalLM(config), LoraConfig(r=4, alpha=8)).train()


def _taught(setting: str) -> list[torch.Tensor]:
    model = _model()
    causal = model.get_base_model()
    backbone = Backbone(causal, context=64)
    compile_layers(causal, SimpleNamespace(compile=setting))  # type: ignore[arg-type]
    out = []
    for lengths in PASSES:
        ids = torch.arange(sum(lengths)) * 31 % 90
        positions = torch.cat([torch.arange(n) for n in lengths])
        asked = (positions > 0).nonzero()[:, 0]
        hidden = backbone(ids, positions, lengths)[asked - 1]
        loss = linear_cross_entropy(hidden, head_of(causal), ids[asked], total=len(asked))
        loss.backward()
        out += [loss.detach(), *(p.grad.clone() for p in model.parameters() if p.requires_grad)]
        model.zero_grad()
    return out


def _compiled(setting: str) -> int:
    model = _model().get_base_model()
    compile_layers(model, SimpleNamespace(compile=setting))  # type: ignore[arg-type]
    return sum(module._compiled_call_impl is not None for module in model.modules())


def test_auto_compiles_nothing_on_a_cpu() -> None:
    assert [_compiled(setting) for setting in ("auto", "off")] == [0, 0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of itself
def test_compiled_layers_say_the_same() -> None:
    assert _compiled("on") == 2
    for a, b in zip(_taught("on"), _taught("off"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
