"""The fused loss is torch's cross-entropy: value and gradients, however positions are split."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from gristmill.train import loss as fused
from gristmill.train.loss import linear_cross_entropy


def _both(n: int, vocabulary: int, seed: int, scale: float) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, vocabulary, (n,), generator=generator)
    start = [torch.randn(n, 16, generator=generator) * scale, torch.randn(vocabulary, 16, generator=generator)]
    out = []
    for mine in (True, False):
        hidden, weight = (t.clone().requires_grad_() for t in start)
        if mine:
            value = linear_cross_entropy(hidden, weight, targets, total=n + 3)
        else:
            value = F.cross_entropy(hidden @ weight.T, targets, reduction="sum") / (n + 3)
        (value * 1.5).backward()
        out.append([value.detach(), hidden.grad, weight.grad])
    return out[0], out[1]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 600), st.integers(2, 90), st.integers(0, 5), st.sampled_from([0.1, 1.0, 20.0]))
def test_value_and_gradients_are_those_of_torch(n: int, vocabulary: int, seed: int, scale: float) -> None:
    mine, reference = _both(n, vocabulary, seed, scale)
    for a, b in zip(mine, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-6)


def test_gradcheck_in_double(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(fused, "CHUNK", 3)
    hidden = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 11, (7,))
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets, total=7), (hidden, weight))


def test_a_hopeless_target_keeps_a_finite_loss() -> None:
    hidden = torch.tensor([[300.0, -300.0]])
    value = linear_cross_entropy(hidden, torch.eye(2), torch.tensor([1]), total=1)
    assert value.item() == 600.0


def test_a_frozen_head_gets_no_gradient_and_evaluation_makes_none() -> None:
    hidden, head = torch.randn(4, 8, requires_grad=True), torch.randn(20, 8)
    targets = torch.tensor([1, 2, 3, 4])
    linear_cross_entropy(hidden, head, targets, total=4).backward()
    assert hidden.grad is not None and head.grad is None
    with torch.no_grad():
        assert not linear_cross_entropy(hidden, head, targets, total=4).requires_grad
