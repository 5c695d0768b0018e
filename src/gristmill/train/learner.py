"""A model and its optimiser: one step forward, a loss without one, and the tensors that a checkpoint keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gristmill.core.errors import CheckpointError, ConfigError
from gristmill.train.attention import Backbone
from gristmill.train.batch import Batch, Said
from gristmill.train.config import TrainConfig
from gristmill.train.loss import head_of
from gristmill.train.objective import Loss, Objective
from gristmill.train.packing import Packed

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Stepped:
    """What a step was: its loss, the gradient's norm before clipping, and the objective's metrics."""

    loss: float
    grad_norm: float
    metrics: dict[str, float] = field(default_factory=dict)


class Learner:
    """Trains what `model` has marked as trainable: fp32 adapters over frozen weights, or fp32 weights under
    autocast."""

    def __init__(self, model: Any, objective: Objective, config: TrainConfig) -> None:
        self.causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.backbone = Backbone(self.causal, context=config.context)
        self.model = model
        self.objective = objective
        self.config = config
        self.device = torch.device("cpu")
        self.dtype = torch.bfloat16 if config.dtype == "bf16" else torch.float32
        self.trained: dict[str, torch.nn.Parameter] = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            _groups(self.trained, config), lr=config.rate, betas=config.betas, fused=True
        )

    def step(self, parts: Sequence[Packed], *, total: float, rate: float, seed: int) -> Stepped:
        """One optimiser step over `parts`, each a forward pass of its own; `total` is what the mean is over. Dropout
        is drawn from `seed`: like the order of the data it is a function of the step, so a resumed run needs no
        generator state."""
        estimate = self._estimate(parts)
        torch.manual_seed(seed)
        self.model.train()
        value, sums = 0.0, Counter[str]()
        for part in parts:
            loss = self._loss(part, total=total, estimate=estimate)
            if loss.value.requires_grad:  # nothing is asked of a part without a supervised token
                loss.value.backward()  # type: ignore[no-untyped-call]
            value += float(loss.value.detach())
            sums.update({name: float(each) for name, each in loss.sums.items()})
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.config.clip))
        if not isfinite(norm):
            raise ConfigError("the gradient is no longer finite", "Lower learning_rate, or train in dtype fp32.")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Stepped(value, norm, {name: each / total for name, each in sums.items()})

    @torch.no_grad()
    def evaluate(self, parts: Sequence[Packed], *, total: float) -> Stepped:
        """Loss and metrics over all parts. Keeps sums, never logits."""
        estimate = self._estimate(parts)
        self.model.eval()
        value, sums = 0.0, Counter[str]()
        for part in parts:
            loss = self._loss(part, total=total, estimate=estimate)
            value += float(loss.value)
            sums.update({name: float(each) for name, each in loss.sums.items()})
        return Stepped(value, 0.0, {name: each / total for name, each in sums.items()})

    @torch.no_grad()
    def reference(self, part: Packed) -> NDArray[np.float32]:
        """The log-probability of each sequence of a part [sequences] under the weights as they are now."""
        self.model.eval()
        return self._said(part).sequence_logprobs().cpu().numpy()

    @torch.no_grad()
    def _estimate(self, parts: Sequence[Packed]) -> float:
        """What the objective estimates over the sequences beside a whole step's examples."""
        self.model.eval()
        found = [self.objective.estimate(self._said(part.beside)) for part in parts if part.beside is not None]
        counts = [each for each in found if each is not None]
        return sum(s for s, _ in counts) / max(1.0, sum(n for _, n in counts))

    def _loss(self, part: Packed, *, total: float, estimate: float) -> Loss:
        return self.objective.loss(self._said(part), total=total, estimate=estimate)

    def _said(self, part: Packed) -> Said:
        batch = Batch.of(part, self.device)
        with self._autocast():
            hidden = self.backbone(batch.ids, batch.positions, part.lengths)
        if self.objective.head == "score":
            return Said(batch, hidden, score=self.causal.score)
        return Said(batch, hidden.to(self.dtype), head=head_of(self.causal))

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", dtype=self.dtype) if self.dtype is torch.bfloat16 else nullcontext()

    def weights(self) -> Tensors:
        """The trained tensors, by name."""
        return {name: p.detach() for name, p in self.trained.items()}

    @torch.no_grad()
    def load(self, weights: Tensors) -> None:
        """Take over tensors that a checkpoint kept. Names must agree exactly."""
        if weights.keys() != self.trained.keys():
            raise CheckpointError(
                "the checkpoint holds other tensors than the model trains", "Train from the beginning."
            )
        for name, p in self.trained.items():
            p.copy_(weights[name])


def _groups(trained: dict[str, torch.nn.Parameter], config: TrainConfig) -> list[dict[str, Any]]:
    """Decay matrices; leave norms and biases alone."""
    matrices = [p for p in trained.values() if p.ndim >= 2]
    vectors = [p for p in trained.values() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
