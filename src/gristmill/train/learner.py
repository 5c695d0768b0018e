"""A model and its optimiser: one step forward, a loss without one, and the tensors that a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch

from gristmill.core.errors import CheckpointError, ConfigError
from gristmill.train.attention import use_packed_attention
from gristmill.train.loss import head_of, linear_cross_entropy
from gristmill.train.packing import Packed
from gristmill.train.stages import SftConfig

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Stepped:
    """What a step was: mean loss over its supervised tokens, and the gradient's norm before clipping."""

    loss: float
    grad_norm: float


class Learner:
    """Trains what `model` has marked as trainable: fp32 adapters over frozen weights, or fp32 weights under
    autocast."""

    def __init__(self, model: Any, config: SftConfig) -> None:
        self.causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        use_packed_attention(self.causal, context=config.context)
        self.model = model
        self.config = config
        self.dtype = torch.bfloat16 if config.dtype == "bf16" else torch.float32
        self.trained: dict[str, torch.nn.Parameter] = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            _groups(self.trained, config), lr=config.rate, betas=config.betas, fused=True
        )

    def step(self, parts: Sequence[Packed], *, rate: float, seed: int) -> Stepped:
        """One optimiser step over `parts`, each a forward pass of its own. Dropout is drawn from `seed`: like the
        order of the data it is a function of the step, so a resumed run needs no generator state."""
        torch.manual_seed(seed)
        self.model.train()
        total = sum(len(part.targets) for part in parts)
        loss = 0.0
        for part in parts:
            if len(part.targets):
                piece = self._loss(part, total)
                piece.backward()  # type: ignore[no-untyped-call]
                loss += float(piece.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.config.clip))
        if not isfinite(norm):
            raise ConfigError("the gradient is no longer finite", "Lower learning_rate, or train in dtype fp32.")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Stepped(loss, norm)

    @torch.no_grad()
    def evaluate(self, parts: Iterable[Packed]) -> float:
        """Mean loss over the supervised tokens of all parts. Keeps one number and one count, never logits."""
        self.model.eval()
        loss, count = 0.0, 0
        for part in parts:
            loss += float(self._loss(part, 1))
            count += len(part.targets)
        return loss / count

    def _loss(self, part: Packed, total: int) -> torch.Tensor:
        ids, positions = torch.from_numpy(part.ids)[None], torch.from_numpy(part.positions)[None]
        with self._autocast():
            hidden = self.causal.get_decoder()(
                input_ids=ids, position_ids=positions, lengths=part.lengths, use_cache=False
            ).last_hidden_state[0]
        asked = hidden.index_select(0, torch.from_numpy(part.ask)).to(self.dtype)
        return linear_cross_entropy(asked, head_of(self.causal), torch.from_numpy(part.targets), total=total)

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


def _groups(trained: dict[str, torch.nn.Parameter], config: SftConfig) -> list[dict[str, Any]]:
    """Decay matrices; leave norms and biases alone."""
    matrices = [p for p in trained.values() if p.ndim >= 2]
    vectors = [p for p in trained.values() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
