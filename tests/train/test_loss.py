"""The fused loss and log-probabilities are torch's own: values and gradients, whatever the head, however positions are
split into chunks, exactly nothing where nothing is asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from gristmill.train import loss as fused
from gristmill.train.loss import Head, linear_cross_entropy, linear_logprobs

BENDS = [(1.0, None), (0.25, None), (2.0, 5.0)]


def _plain(hidden: torch.Tensor, head: Head) -> torch.Tensor:
    """The head's formula, by autograd."""
    logits = hidden @ head.weight.T + (0 if head.bias is None else head.bias)
    logits = logits * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def _drawn(n: int, vocabulary: int, seed: int, *, scale: float = 1.0, dtype=torch.float32):  # type: ignore[no-untyped-def]
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=dtype)  # noqa: E731
    hidden, weight, bias = draw(n, 16) * scale, draw(vocabulary, 16), draw(vocabulary)
    targets = torch.randint(0, vocabulary, (n,), generator=generator)
    return [t.requires_grad_() for t in (hidden, weight, bias)], targets, draw(n)


def _taught(value: torch.Tensor, leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    grads = torch.autograd.grad((value * 1.5).sum(), leaves, retain_graph=True)
    return [value.detach(), *grads]


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 600),
    st.integers(2, 90),
    st.integers(0, 5),
    st.sampled_from([0.1, 1.0, 20.0]),
    st.sampled_from(BENDS),
)
def test_values_and_gradients_are_those_of_torch(
    n: int, vocabulary: int, seed: int, scale: float, bend: tuple[float, float | None]
) -> None:
    leaves, targets, weights = _drawn(n, vocabulary, seed, scale=scale)
    head = Head(leaves[1], leaves[2], *bend)
    logits = _plain(leaves[0], head)
    loss = (F.cross_entropy(logits, targets, reduction="none") * weights).sum() / (n + 3)
    logprobs = torch.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0]
    mine = linear_cross_entropy(leaves[0], head, targets, weights=weights, total=n + 3)
    pairs = [(mine, loss), (linear_logprobs(leaves[0], head, targets) * weights, logprobs * weights)]
    for ours, theirs in pairs:
        for a, b in zip(_taught(ours, leaves), _taught(theirs, leaves), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5 * float(b.abs().max()) + 1e-6)


@pytest.mark.parametrize("bend", BENDS)
def test_gradcheck_in_double(monkeypatch, bend) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(fused, "CHUNK", 3)
    leaves, targets, weights = _drawn(7, 11, 1, dtype=torch.float64)

    def loss(h: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(h, Head(w, b, *bend), targets, weights=weights, total=7)

    def logprobs(h: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return linear_logprobs(h, Head(w, b, *bend), targets)

    assert torch.autograd.gradcheck(loss, leaves)
    assert torch.autograd.gradcheck(logprobs, leaves)


@pytest.mark.parametrize(("chunk", "span"), [(1, 50), (7, 20), (64, 64), (1000, 1000), (16, 130)])
def test_the_sizes_of_chunk_and_span_change_rounding_alone(monkeypatch, chunk: int, span: int) -> None:  # type: ignore[no-untyped-def]
    leaves, targets, weights = _drawn(130, 50, 2, dtype=torch.float64)
    head = Head(*leaves[1:])

    def both() -> list[torch.Tensor]:
        loss = linear_cross_entropy(leaves[0], head, targets, weights=weights, total=9)
        return _taught(loss, leaves) + _taught(linear_logprobs(leaves[0], head, targets), leaves)

    before = both()
    monkeypatch.setattr(fused, "CHUNK", chunk)
    monkeypatch.setattr(fused, "SPAN", span)
    for a, b in zip(both(), before, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("say", ["loss", "logprobs"])
def test_positions_of_weight_zero_get_exactly_no_gradient(say: str) -> None:
    leaves, targets, weights = _drawn(300, 40, 3)
    weights[::3] = 0.0
    head = Head(leaves[1])
    if say == "loss":
        value = linear_cross_entropy(leaves[0], head, targets, weights=weights, total=1)
    else:
        value = (linear_logprobs(leaves[0], head, targets) * weights).sum()
    grad, whole = torch.autograd.grad(value, leaves[:2])
    assert not grad[::3].any() and grad[1::3].abs().sum(1).min() > 0
    kept = weights != 0
    alone = linear_cross_entropy(leaves[0][kept], head, targets[kept], weights=weights[kept], total=1)
    torch.testing.assert_close(whole, -torch.autograd.grad(alone, leaves[1])[0] * (1 if say == "logprobs" else -1))


def test_bf16_products_with_sums_in_fp32() -> None:
    """Only the rounding of products is bf16's: far closer to the truth than sums in bf16 would be."""
    leaves, targets, _ = _drawn(2000, 300, 4)
    truth = F.cross_entropy(_plain(leaves[0], Head(leaves[1])), targets)
    low = leaves[0].detach().bfloat16().requires_grad_()
    for value in (
        linear_cross_entropy(low, Head(leaves[1]), targets, total=2000),
        -linear_logprobs(low, Head(leaves[1]), targets).mean(),
    ):
        assert value.dtype is torch.float32
        assert abs(float((value - truth).detach())) < 2e-3 * float(truth.detach())
        hidden, weight = torch.autograd.grad(value, [low, leaves[1]])
        assert hidden.dtype is torch.bfloat16 and weight.dtype is torch.float32
        true = torch.autograd.grad(truth, leaves[1], retain_graph=True)[0]
        assert float((weight - true).norm() / true.norm()) < 1e-2


def test_a_hopeless_target_keeps_a_finite_loss() -> None:
    hidden, head = torch.tensor([[300.0, -300.0]]), Head(torch.eye(2))
    assert linear_cross_entropy(hidden, head, torch.tensor([1]), total=1).item() == 600.0
    assert linear_logprobs(hidden, head, torch.tensor([1])).item() == -600.0


@pytest.mark.parametrize("of", [lambda *a: linear_cross_entropy(*a, total=4), lambda *a: linear_logprobs(*a).sum()])
def test_a_frozen_head_gets_no_gradient_and_evaluation_makes_none(of: Callable[..., torch.Tensor]) -> None:
    hidden, head = torch.randn(4, 8, requires_grad=True), Head(torch.randn(20, 8))
    targets = torch.tensor([1, 2, 3, 4])
    of(hidden, head, targets).backward()
    assert hidden.grad is not None and head.weight.grad is None
    with torch.no_grad():
        assert not of(hidden, head, targets).requires_grad


def test_weights_that_learn_are_refused() -> None:
    hidden, weights = torch.randn(4, 8), torch.ones(4, requires_grad=True)
    with pytest.raises(ValueError, match="linear_logprobs"):
        linear_cross_entropy(hidden, Head(torch.randn(9, 8)), torch.arange(4), weights=weights, total=4)
