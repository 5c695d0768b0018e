"""The fused adapter layer is peft's: outputs and gradients to the rounding of fp64, close in bf16, and keeping less."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from gristmill.core.errors import ConfigError
from gristmill.models.lora import LoraConfig, attach
from gristmill.models.lora_linear import LoraLinear


def _pair(dtype: torch.dtype = torch.float32, **lora: Any) -> tuple[Any, Any]:
    """The same adapted model twice: fused, and with peft's own forward."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, attention_bias=True, initializer_range=0.2,
    )  # fmt: skip
    fused = attach(LlamaForCausalLM(config).to(dtype), LoraConfig(**{"r": 4, "alpha": 6, **lora}))
    for name, p in fused.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, 0.0, 0.3)
    plain = copy.deepcopy(fused)
    for layer in plain.modules():
        if isinstance(layer, LoraLinear):
            layer.__class__ = LoraLinear.__mro__[1]
    return fused, plain


def _fused(model: Any) -> int:
    return sum(isinstance(layer, LoraLinear) for layer in model.modules())


def _taught(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    ids = torch.arange(40).view(2, 20) % 50
    logits = model(input_ids=ids).logits.double()
    (logits.sin().sum() / 7).backward()
    return logits.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("variant", ["lora", "rslora"])
def test_outputs_and_gradients_are_those_of_peft(variant: str) -> None:
    fused, plain = (model.double() for model in _pair(variant=variant))
    assert _fused(fused) == 14 and _fused(plain) == 0
    ours, theirs = _taught(fused), _taught(plain)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-10, atol=1e-12)
    assert ours[1].keys() == theirs[1].keys() and len(ours[1]) == 28
    for name, grad in theirs[1].items():
        assert (ours[1][name] - grad).norm() <= 1e-10 * grad.norm(), name


def test_gradcheck_in_double() -> None:
    layer = next(m for m in _pair(torch.float64)[0].modules() if isinstance(m, LoraLinear)).double()
    x = torch.randn(2, 3, 32, dtype=torch.float64, requires_grad=True)
    weights = [layer.lora_A["default"].weight, layer.lora_B["default"].weight]
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *weights), fast_mode=True)


def test_rslora_scales_by_the_root_of_the_rank() -> None:
    layer = next(m for m in _pair(variant="rslora")[0].modules() if isinstance(m, LoraLinear))
    assert layer.scaling["default"] == 6 / math.sqrt(4)


def test_bf16_weights_with_fp32_adapters_and_gradients() -> None:
    fused, plain = _pair(torch.bfloat16)
    truth = _taught(_pair()[1])[1]
    ours, theirs = _taught(fused)[1], _taught(plain)[1]
    apart = {
        which: torch.stack([(grads[n] - g).norm() / g.norm() for n, g in truth.items()]).mean()
        for which, grads in (("ours", ours), ("theirs", theirs))
    }
    assert all(g.dtype is torch.float32 for g in ours.values())
    assert apart["ours"] < 1.5 * apart["theirs"]


def test_the_input_is_kept_once_and_as_it_came() -> None:
    """Between forward and backward: nothing of a layer's size but its input, in the frozen weights' type."""
    kept: list[torch.Tensor] = []
    layer = next(m for m in _pair(torch.bfloat16)[0].modules() if isinstance(m, LoraLinear))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.randn(1, 500, 32, dtype=torch.bfloat16, requires_grad=True))
    large = [t for t in kept if t.shape[0] == 500]
    assert sorted((tuple(t.shape), t.dtype) for t in large) == [((500, 4), torch.bfloat16), ((500, 32), torch.bfloat16)]


@pytest.mark.parametrize("lora", [{"variant": "dora"}, {"dropout": 0.1}])
def test_what_is_another_formula_goes_pefts_way(lora: dict[str, Any]) -> None:
    fused, _ = _pair(**lora)
    assert _fused(fused) == 0
    assert len(_taught(fused)[1]) >= 28


def test_disabled_and_merged_adapters_are_as_in_peft() -> None:
    fused, plain = _pair()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        before = fused(input_ids=ids).logits
        with fused.disable_adapter(), plain.disable_adapter():
            assert torch.equal(fused(input_ids=ids).logits, plain(input_ids=ids).logits)
        fused.merge_adapter()
        torch.testing.assert_close(fused(input_ids=ids).logits, before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "nothing"])
def test_what_takes_no_adapter_is_refused_by_name(target: str) -> None:
    with pytest.raises(ConfigError, match=f"takes no adapter in this model: {target}") as told:
        _pair(targets=["q_proj", target])
    assert told.value.hint.endswith("down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj.")


def test_a_score_head_takes_no_adapter() -> None:
    config = LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=1)
    with pytest.raises(ConfigError, match="takes no adapter in this model: score"):
        attach(LlamaForSequenceClassification(config), LoraConfig(r=4, targets=["score"]))
