"""A linear layer with a low-rank adapter as one function: y = x Wᵀ + b + s · (x Aᵀ) Bᵀ (Hu et al., arXiv 2106.09685).

peft's own forward turns the input into the adapter's fp32, and autograd keeps that and each product. Here everything is
multiplied in the frozen weight's type, and what is kept for the backward is the input as it came and x Aᵀ. The adapters
stay fp32, and so do their gradients where passes are summed.

It stands in for peft's layer where that computes this formula: one adapter, no dropout, a plain frozen linear layer.
DoRA, dropout, 4-bit weights, merged or disabled adapters go peft's own way.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from peft.tuners.lora import Linear as PeftLinear
from torch.autograd.function import once_differentiable


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        """`x` [tokens, in], `weight` [out, in], `down` A [r, in], `up` B [out, r]."""
        inner = x @ down.to(x.dtype).T
        out = torch.nn.functional.linear(x, weight, bias)
        out.addmm_(inner, up.to(x.dtype).T, alpha=scale)
        ctx.save_for_backward(x, weight, inner, down, up)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, inner, down, up = ctx.saved_tensors
        through = grad @ up.to(grad.dtype)  # [tokens, r]
        back = None
        if ctx.needs_input_grad[0]:
            back = grad @ weight
            back.addmm_(through, down.to(grad.dtype), alpha=ctx.scale)
        grad_down = (through.T @ x).to(down.dtype).mul_(ctx.scale)
        grad_up = (grad.T @ inner).to(up.dtype).mul_(ctx.scale)
        return back, None, None, grad_down, grad_up, None


class LoraLinear(PeftLinear):
    """peft's layer with the forward above. Layers become one by `fuse`."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.disable_adapters or self.merged or args or kwargs or len(self.active_adapters) != 1:
            return super().forward(x, *args, **kwargs)
        name, base = self.active_adapters[0], cast(torch.nn.Linear, self.base_layer)
        flat = x.reshape(-1, x.shape[-1]).to(base.weight.dtype)
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        out = _LoraLinear.apply(flat, base.weight, base.bias, down, up, self.scaling[name])  # type: ignore[no-untyped-call]
        return out.view(*x.shape[:-1], -1)  # type: ignore[no-any-return]


def fuse(model: torch.nn.Module) -> None:
    """Let every layer that the formula holds for compute it in one function."""
    for layer in model.modules():
        if type(layer) is PeftLinear and _plain(layer):
            layer.__class__ = LoraLinear


def _plain(layer: Any) -> bool:
    base, name = layer.base_layer, layer.active_adapters[0]
    frozen = type(base) is torch.nn.Linear and not any(p.requires_grad for p in base.parameters())
    undropped = isinstance(layer.lora_dropout[name], torch.nn.Identity)
    biased = layer.lora_B[name].bias is not None
    return frozen and undropped and not biased and not layer.lora_variant and not layer.fan_in_fan_out
