"""What a causal model's head says of given next tokens, straight from hidden states and in chunks: logits never exist
for more than one chunk.

`linear_cross_entropy` is for losses whose weights are known before the pass: its gradient is made in the forward, while
a chunk's logits are at hand, and the backward only scales it. `linear_logprobs` is for losses that compare
log-probabilities first: their gradient is known only afterwards, so the backward makes a chunk's logits again. Products
run in the hidden states' type; softmax, sums over positions and the weight's gradient in fp32.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import torch

from gristmill.core.errors import ConfigError
from gristmill.models.tokens import HeadBeside

CHUNK, SPAN = 128, 1024
"""Positions whose logits exist at a time (at 49k tokens of vocabulary 25 MB in fp32), and positions whose errors are
kept, in the hidden states' type, for one product with them: the weight's gradient is as large as the weight, and
summing it for every chunk costs a CPU more than the products."""


_SCALES = ("logit_scale", "lm_head_multiplier")
_CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
_MULTIPLIED = ("hyperclovax",)
"""A config's names for its head's scale and cap. Granite's `logits_scaling` divides, HyperCLOVA's multiplies."""


@dataclass(frozen=True)
class Head:
    """Hidden states to logits: `softcap · tanh(scale · (h Wᵀ + bias) / softcap)`, without the cap where there is none.

    `weight` [vocabulary, width], `bias` [vocabulary]. GPT-J and Phi have a bias, Cohere and Granite a scale, Gemma 2 a
    cap.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def as_type(self, dtype: torch.dtype) -> Head:
        bias = None if self.bias is None else self.bias.to(dtype)
        return Head(self.weight.to(dtype), bias, self.scale, self.softcap)

    def logits(self, hidden: torch.Tensor, room: Room | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits in fp32 or wider, and their slope against `scale · (h Wᵀ + bias)` where a cap bends them."""
        room = room or Room(hidden, self)
        product, raw = (each[: len(hidden)] for each in (room.product, room.logits))
        torch.mm(hidden, self.weight.T, out=product)
        raw.copy_(product)
        if self.bias is not None:
            raw += self.bias
        if self.scale != 1.0:
            raw *= self.scale
        if self.softcap is None:
            return raw, None
        bent = raw.div_(self.softcap).tanh_()
        return bent * self.softcap, bent.square_().neg_().add_(1.0)


class Room:
    """Where one chunk after another is worked on: memory that is new costs a CPU as much as what is done in it."""

    def __init__(self, hidden: torch.Tensor, head: Head) -> None:
        shape = (min(CHUNK, len(hidden)), len(head.weight))
        self.product = hidden.new_empty(shape)
        self.logits, self.logp = (hidden.new_empty(shape, dtype=wider(hidden)) for _ in range(2))


def wider(x: torch.Tensor) -> torch.dtype:
    """What sums over `x` are kept in: fp32, or fp64 where x is."""
    return torch.promote_types(x.dtype, torch.float32)


def head_of(causal: Any) -> Head:
    """The head of a transformers causal LM, by what its config says. `attention.prepare` proves it on the model."""
    layer, config = causal.get_output_embeddings(), causal.config.get_text_config()
    if not isinstance(layer, torch.nn.Linear | HeadBeside):
        raise ConfigError(f"{type(causal).__name__} has no linear output head", "Choose a causal language model.")
    scale = 1.0
    for name in _SCALES:
        scale *= getattr(config, name, None) or 1.0
    spread = getattr(config, "logits_scaling", None) or 1.0
    scale = scale * spread if config.model_type in _MULTIPLIED else scale / spread
    cap = next((value for name in _CAPS if (value := getattr(config, name, None))), None)
    return Head(layer.weight, layer.bias, scale, cap)


class _Gradients:
    """Sums what each chunk's error (the gradient with respect to its logits) is for hidden states, weight and bias."""

    def __init__(self, hidden: torch.Tensor, head: Head, needs: tuple[bool, ...]) -> None:
        self.head, self._input = head, hidden
        self.hidden = torch.empty_like(hidden) if needs[0] else None
        self.weight: torch.Tensor | None = None
        self.bias = torch.zeros_like(head.bias, dtype=wider(hidden)) if needs[2] and head.bias is not None else None
        self._learns = needs[1]
        kept = min(SPAN if needs[1] else CHUNK, len(hidden))
        self._errors = hidden.new_empty(kept, len(head.weight)) if any(needs) else hidden.new_empty(0)

    def add(self, at: slice, error: torch.Tensor, factor: torch.Tensor, slope: torch.Tensor | None) -> None:
        """A chunk's error is `error · factor`, [positions, vocabulary] and [positions, 1]; `error` is used up."""
        if slope is not None:
            error *= slope
        factor = factor * self.head.scale
        if self.bias is not None:
            self.bias += (error * factor).sum(0)
        first = at.start % SPAN if self._learns else 0
        rounded = torch.mul(error, factor, out=self._errors[first : first + len(error)])
        if self.hidden is not None:
            torch.mm(rounded, self.head.weight, out=self.hidden[at])
        if self._learns and (first + len(error) == SPAN or at.stop >= len(self._input)):
            self._teach(at.start - first, first + len(error))

    def _teach(self, start: int, count: int) -> None:
        """The weight's share of the errors that are kept."""
        made = self._errors[:count].T @ self._input[start : start + count]
        if self.weight is None:
            self.weight = made.to(wider(made))
        else:
            self.weight += made

    def all(self) -> tuple[torch.Tensor | None, ...]:
        if self._learns and self.weight is None:  # nothing was asked
            self.weight = torch.zeros_like(self.head.weight, dtype=wider(self.head.weight))
        return self.hidden, self.weight, self.bias


def _chunks(hidden: torch.Tensor) -> list[slice]:
    """Whole spans, each in whole chunks but its last."""
    starts = [
        start for span in range(0, len(hidden), SPAN) for start in range(span, min(span + SPAN, len(hidden)), CHUNK)
    ]
    return [slice(a, b) for a, b in itertools.pairwise([*starts, len(hidden)])]


def _cross_entropy(
    hidden: torch.Tensor, head: Head, targets: torch.Tensor, weights: torch.Tensor, needs: tuple[bool, ...]
) -> tuple[torch.Tensor, _Gradients]:
    """Σ weight · -log p(target), and its gradients. `weights` [positions] in fp32 or wider."""
    used = head.as_type(hidden.dtype)
    loss, grads = torch.zeros((), dtype=wider(hidden), device=hidden.device), _Gradients(hidden, used, needs)
    room = Room(hidden, used)
    for at in _chunks(hidden):
        wanted, weight = targets[at, None], weights[at, None]
        logits, slope = used.logits(hidden[at], room)
        logp = torch._log_softmax(logits, 1, half_to_float=False, out=room.logp[: len(logits)])
        loss -= (logp.gather(1, wanted) * weight).sum()
        if any(needs):
            error = logp.exp_().scatter_add_(1, wanted, torch.full_like(logp[:, :1], -1.0))
            grads.add(at, error, weight, slope)
    return loss, grads


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        weights: torch.Tensor,
        bend: tuple[float, float | None],
    ) -> torch.Tensor:
        loss, grads = _cross_entropy(hidden, Head(weight, bias, *bend), targets, weights, ctx.needs_input_grad[:3])
        ctx.save_for_backward(*grads.all())
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        made = [None if t is None else t * grads[0].to(t.dtype) for t in ctx.saved_tensors]
        return *made, None, None, None


def linear_cross_entropy(
    hidden: torch.Tensor,
    head: Head,
    targets: torch.Tensor,
    *,
    total: float,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sum over positions of `weight · -log p(target)`, divided by `total`: the weight of the whole optimiser step, so
    that how a step is split into forward passes changes nothing. Weights are 1 where none are given, and constants.

    `hidden` [positions, width] at supervised positions only; `targets`, `weights` [positions]. A scalar.
    """
    if weights is not None and weights.requires_grad:
        raise ValueError("weights are constants: a loss that learns through its weights takes linear_logprobs")
    if weights is None:
        shares = torch.full(targets.shape, 1.0 / total, dtype=wider(hidden), device=hidden.device)
    else:
        shares = weights.to(wider(hidden)) / total
    if torch.is_grad_enabled():
        bend = (head.scale, head.softcap)
        return _LinearCrossEntropy.apply(hidden, head.weight, head.bias, targets, shares, bend)  # type: ignore[no-any-return, no-untyped-call]
    return _cross_entropy(hidden, head, targets, shares, (False, False, False))[0]


class _LinearLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        bend: tuple[float, float | None],
    ) -> torch.Tensor:
        used = Head(weight, bias, *bend).as_type(hidden.dtype)
        said = torch.empty(targets.shape, dtype=wider(hidden), device=hidden.device)
        totals, room = torch.empty_like(said), Room(hidden, used)
        for at in _chunks(hidden):
            wanted = targets[at, None]
            logits, _ = used.logits(hidden[at], room)
            logp = torch._log_softmax(logits, 1, half_to_float=False, out=room.logp[: len(logits)])
            said[at] = logp.gather(1, wanted)[:, 0]
            totals[at] = (logits.gather(1, wanted) - logp.gather(1, wanted))[:, 0]
        ctx.save_for_backward(hidden, weight, bias, targets, totals)
        ctx.bend = bend
        return said

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, totals = ctx.saved_tensors
        used = Head(weight, bias, *ctx.bend).as_type(hidden.dtype)
        grads, room = _Gradients(hidden, used, ctx.needs_input_grad[:3]), Room(hidden, used)
        for at in _chunks(hidden):
            wanted, wish = targets[at, None], upstream[0][at, None]
            logits, slope = used.logits(hidden[at], room)
            error = logits.sub_(totals[at, None]).exp_().neg_()
            grads.add(at, error.scatter_add_(1, wanted, torch.ones_like(error[:, :1])), wish, slope)
        return *grads.all(), None, None


def linear_logprobs(hidden: torch.Tensor, head: Head, targets: torch.Tensor) -> torch.Tensor:
    """log p(target) of each position, differentiable with respect to hidden states and head.

    `hidden` [positions, width], `targets` [positions]; gives [positions] in fp32 or wider.
    """
    bend = (head.scale, head.softcap)
    return _LinearLogprobs.apply(hidden, head.weight, head.bias, targets, bend)  # type: ignore[no-any-return, no-untyped-call]
