"""Packed training is unpacked training; nothing outside the mask has a gradient; how a step is split changes
nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import LlamaForCausalLM

from gristmill.train.learner import Learner
from gristmill.train.loop import Course
from gristmill.train.objectives.sft import Supervised
from gristmill.train.packing import Example, Packed, Tokens
from gristmill.train.packing import collate as collate_examples


def collate(sequences: list[Tokens]) -> Packed:
    return collate_examples([Example((tokens,)) for tokens in sequences])


def learner_of(model: Any, config: Any) -> Learner:
    return Learner(model, Supervised(config), config)


@pytest.fixture
def model(model_folder: Path) -> Any:
    return LlamaForCausalLM.from_pretrained(model_folder, dtype=torch.float32)


@pytest.fixture
def sequences() -> list[Tokens]:
    rng = np.random.default_rng(0)
    return [Tokens(rng.integers(3, 400, n), rng.random(n) < 0.6) for n in (5, 31, 17, 64, 2, 40)]


def _loss(learner: Learner, part: Any, total: float) -> torch.Tensor:
    return learner.reading(part, lambda said: learner.objective.loss(said, total=total, estimate=0.0).value)


def _gradients(learner: Learner, parts: list[Any]) -> tuple[float, dict[str, torch.Tensor]]:
    total = sum(len(p.targets) for p in parts)
    learner.model.zero_grad()
    losses = [_loss(learner, p, total) for p in parts]
    for loss in losses:
        loss.backward()
    return float(sum(loss.detach() for loss in losses)), {n: p.grad.clone() for n, p in learner.trained.items()}


def _same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6, msg=lambda m, name=name: f"{name}: {m}")


def _reference(model: Any, sequences: list[Tokens]) -> tuple[float, dict[str, torch.Tensor]]:
    """transformers' own forward and loss, one sequence at a time."""
    model.set_attn_implementation("sdpa")
    model.zero_grad()
    total = sum(s.supervised for s in sequences)
    loss = torch.zeros(())
    for s in sequences:
        logits = model(input_ids=torch.from_numpy(s.ids)[None]).logits[0, :-1]
        labels = torch.where(torch.from_numpy(s.mask[1:]), torch.from_numpy(s.ids[1:]), -100)
        loss = loss + torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum") / total
    loss.backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in model.named_parameters()}


def test_packed_is_unpacked_is_transformers(model: Any, sequences: list[Tokens], config: Any) -> None:
    learner = learner_of(model, config(lora=None, dtype="fp32"))
    packed, packed_grads = _gradients(learner, [collate(sequences)])
    alone, alone_grads = _gradients(learner, [collate([s]) for s in sequences])
    split, split_grads = _gradients(learner, [collate(sequences[:2]), collate(sequences[2:])])
    turned, turned_grads = _gradients(learner, [collate(sequences[::-1])])
    theirs, their_grads = _reference(model, sequences)
    assert packed == pytest.approx(theirs, rel=1e-5)
    for other in (alone, split, turned):
        assert other == pytest.approx(packed, rel=1e-5)
    for grads in (alone_grads, split_grads, turned_grads, their_grads):
        _same(grads, packed_grads)


def test_tokens_after_the_last_supervised_one_have_no_influence(model: Any, config: Any) -> None:
    """The gradient at unsupervised tokens of other sequences, and after the mask, is exactly zero."""
    learner = learner_of(model, config(lora=None, dtype="fp32"))
    ids = np.arange(10, 30)
    seen = Tokens(ids, np.arange(20) < 8)
    unseen = Tokens(np.arange(50, 60), np.zeros(10, bool))
    embeddings: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        embeddings.append(output)

    handle = model.get_input_embeddings().register_forward_hook(keep)
    _loss(learner, collate([unseen, seen]), 7).backward()
    handle.remove()
    grad = embeddings[0].grad[0]
    assert (grad[:10] == 0).all()
    assert (grad[10 + 7 :] == 0).all()
    assert (grad[10 : 10 + 7] != 0).any(dim=1).all()


def test_only_supervised_targets_shape_the_head(model: Any, config: Any) -> None:
    """A sequence without supervision adds nothing to a step's gradients."""
    learner = learner_of(model, config(lora=None, dtype="fp32"))
    seen = Tokens(np.arange(10, 30), np.ones(20, bool))
    unseen = Tokens(np.arange(50, 60), np.zeros(10, bool))
    alone = _gradients(learner, [collate([seen])])
    beside = _gradients(learner, [collate([seen, unseen])])
    assert alone[0] == beside[0]
    _same(alone[1], beside[1])


@dataclass(frozen=True)
class _Held:
    """Examples in memory."""

    examples: list[Example]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.array([len(example) for example in self.examples], np.int64)

    @property
    def sizes(self) -> NDArray[np.float64]:
        return np.array([example.supervised for example in self.examples], np.float64)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        return self.examples[index]


@pytest.mark.parametrize("packing", [True, False])
def test_a_validation_is_read_in_passes_as_full_as_can_be(packing: bool, model: Any, config: Any) -> None:
    """As few passes as `forward` allows, and the loss that a pass for each example gives."""
    rng = np.random.default_rng(4)
    lengths = rng.integers(3, 65, 60)
    given = _Held([Example((Tokens(rng.integers(3, 400, n), np.ones(n, bool)),)) for n in lengths])
    learner = learner_of(model, config(lora=None, dtype="fp32"))
    losses, passes = [], []
    for forward in (1, 64, 512):
        settings = config(context=64, packing=packing, forward=forward)
        lesson = Course.of(settings, given, given, seed=1).validation
        assert lesson is not None
        assert lesson.tokens == lengths.sum() and max(len(part.ids) for part in lesson.parts) <= max(forward, 64)
        losses.append(learner.evaluate(lesson.parts, total=lesson.total).loss)
        passes.append(len(lesson.parts))
    alone = [collate_examples([example]) for example in given.examples]
    losses.append(learner.evaluate(alone, total=float(given.sizes.sum())).loss)
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)
    assert passes[0] == passes[1] < 60
    assert passes[2] == -(-int(lengths.sum()) // 512)  # none could be saved
