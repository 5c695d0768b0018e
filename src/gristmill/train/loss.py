"""Cross-entropy of the next token straight from hidden states, in chunks: logits never exist for more than one
chunk.

The gradient is computed in the forward pass, while a chunk's logits are at hand; the backward pass only scales it.
Products run in the hidden states' type, everything summed over (softmax, loss, the weight's gradient) in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

CHUNK = 256
"""Positions at a time: at 49k tokens of vocabulary a chunk's fp32 logits are 50 MB."""


@dataclass(frozen=True)
class _Sums:
    loss: torch.Tensor
    grad_hidden: torch.Tensor | None
    grad_weight: torch.Tensor | None


def _chunks(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, scale: float, grads: tuple[bool, bool]
) -> _Sums:
    wide = torch.promote_types(hidden.dtype, torch.float32)
    used = weight.to(hidden.dtype)
    loss = torch.zeros((), dtype=wide)
    grad_hidden = torch.empty_like(hidden) if grads[0] else None
    grad_weight = torch.zeros_like(weight, dtype=wide) if grads[1] else None
    for start in range(0, len(hidden), CHUNK):
        at = slice(start, start + CHUNK)
        part, wanted = hidden[at], targets[at, None]
        logp = torch.log_softmax(part @ used.T, dim=-1, dtype=wide)
        loss -= logp.gather(1, wanted).sum()
        if not any(grads):
            continue
        error = logp.exp_()  # the gradient with respect to the logits: probability, less one at the target, over n
        error.scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=wide))
        error = error.mul_(scale).to(hidden.dtype)
        if grad_hidden is not None:
            torch.mm(error, used, out=grad_hidden[at])
        if grad_weight is not None:
            grad_weight += error.T @ part
    return _Sums(loss * scale, grad_hidden, grad_weight)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, scale: float
    ) -> torch.Tensor:
        sums = _chunks(hidden, weight, targets, scale=scale, grads=ctx.needs_input_grad[:2])
        ctx.save_for_backward(sums.grad_hidden, sums.grad_weight)
        return sums.loss

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
        hidden, weight = ctx.saved_tensors
        factor = grads[0]
        return (
            None if hidden is None else hidden * factor.to(hidden.dtype),
            None if weight is None else weight * factor,
            None,
            None,
        )


def linear_cross_entropy(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, total: int
) -> torch.Tensor:
    """Sum over positions of -log p(target), divided by `total`: the supervised tokens of the whole optimiser step,
    so that how a step is split into forward passes changes nothing.

    `hidden` [positions, width] at supervised positions only; `weight` [vocabulary, width]; `targets` [positions].
    """
    if torch.is_grad_enabled():
        return _LinearCrossEntropy.apply(hidden, weight, targets, 1.0 / total)  # type: ignore[no-any-return, no-untyped-call]
    return _chunks(hidden, weight, targets, scale=1.0 / total, grads=(False, False)).loss
