"""A model and its optimiser: one step forward, a loss without one, and the tensors that a checkpoint keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gristmill.core.errors import CheckpointError, ConfigError
from gristmill.train.attention import Backbone
from gristmill.train.batch import Batch, Said
from gristmill.train.compiled import compile_layers
from gristmill.train.config import TrainConfig
from gristmill.train.loss import head_of
from gristmill.train.objective import Loss, Objective
from gristmill.train.optimizer import optimizer_of
from gristmill.train.packing import Packed
from gristmill.train.parallel import Ranks, gathered, shard_like, whole

Tensors = dict[str, torch.Tensor]

TOGETHER = 32
"""Forward passes that are laid out and shared at once where there may be many of them: a validation set is of any
size."""


def _together(parts: Sequence[Packed]) -> Iterator[Sequence[Packed]]:
    return (parts[at : at + TOGETHER] for at in range(0, len(parts), TOGETHER))


@dataclass(frozen=True)
class Stepped:
    """What a step was: its loss, the gradient's norm before clipping, and the objective's metrics."""

    loss: float
    grad_norm: float
    metrics: dict[str, float] = field(default_factory=dict)


class Reading(torch.nn.Module):
    """One forward pass: a part is read, and whoever called asks what the model says of it.

    A module of its own, so that DDP and FSDP see every use of a parameter: the head's too, which the fused loss takes
    outside of its layer.
    """

    def __init__(self, model: Any, *, context: int, dtype: torch.dtype, scored: bool) -> None:
        super().__init__()
        self.model = model
        self.dtype = dtype
        self.scored = scored
        self.backbone = Backbone(self.causal, context=context)

    @property
    def causal(self) -> Any:
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    def forward(self, part: Packed, ask: Callable[[Said], Any]) -> Any:
        batch = Batch.of(part, self.device)
        with self.autocast():
            hidden = self.backbone(batch.ids, batch.positions, part.lengths)
        if self.scored:
            return ask(Said(batch, hidden, score=self.causal.score))
        return ask(Said(batch, hidden.to(self.dtype), head=head_of(self.causal)))

    def autocast(self) -> AbstractContextManager[Any]:
        half = self.dtype is torch.bfloat16
        return torch.autocast(self.device.type, dtype=self.dtype) if half else nullcontext()


@dataclass(frozen=True)
class _Complete:
    """What the shards of all processes come to; empty in all but the first."""

    weights: Tensors
    state: dict[str, Any]


class _Told:
    """Sums over passes, kept on the device in fp64 until they are read once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.names: tuple[str, ...] = ()
        self.sums = torch.zeros(1, dtype=torch.float64, device=device)

    def add(self, value: torch.Tensor, sums: Mapping[str, torch.Tensor], weight: float) -> None:
        """One pass: its loss, and its objective's sums, whose names are the same in each."""
        if sums and not self.names:
            self.names = tuple(sums)
            self.sums = torch.zeros(1 + len(sums), dtype=torch.float64, device=self.device)
        each = [value.detach(), *(torch.as_tensor(sums[name], device=self.device).detach() for name in self.names)]
        self.sums += weight * torch.stack([number.double() for number in each])

    def over(self, ranks: Ranks) -> tuple[float, dict[str, float]]:
        """The loss and the sums over all passes of all processes."""
        value, *rest = ranks.summed(self.sums).tolist()
        return value, dict(zip(self.names, rest, strict=True))


def _sequence_logprobs(said: Said) -> torch.Tensor:
    return said.sequence_logprobs()


class Learner:
    """Trains what `model` has marked as trainable, where the model lies: fp32 adapters over frozen weights, or fp32
    weights under autocast.

    `checkpointing: on` keeps the inputs of each layer alone and computes the rest again in the backward pass: a fifth
    slower, the same gradients to the bit (Chen et al. 2016, arXiv 1604.06174).
    """

    def __init__(
        self,
        model: Any,
        objective: Objective,
        config: TrainConfig,
        *,
        ranks: Ranks = Ranks(),  # noqa: B008  (frozen)
    ) -> None:
        self.model = model
        self.objective = objective
        self.config = config
        self.ranks = ranks
        dtype = torch.bfloat16 if config.dtype == "bf16" else torch.float32
        reading = Reading(model, context=config.context, dtype=dtype, scored=objective.head == "score")
        self.causal = reading.causal
        self.own_attention, self.autocast = reading.backbone.own_attention, reading.autocast  # to generate
        self.one_by_one = reading.backbone.why  # why sequences are not read together; empty where they are
        if config.checkpointing == "on":
            if not self.causal.supports_gradient_checkpointing:
                raise ConfigError(
                    f"{type(self.causal).__name__} cannot recompute activations", "Set checkpointing: off."
                )
            self.causal.activation_checkpointing_enable({"use_reentrant": False})
        compile_layers(self.causal, config)
        self.reading = ranks.wrap(reading, layers=self.causal._no_split_modules or ())
        self.trained: dict[str, torch.nn.Parameter] = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer = optimizer_of(self.trained.values(), config)
        self._complete: _Complete | None = None

    @property
    def device(self) -> torch.device:
        return next(self.causal.parameters()).device  # type: ignore[no-any-return]

    def step(self, parts: Sequence[Packed], *, total: float, rate: float, seed: int) -> Stepped:
        """One optimiser step over `parts`, each a forward pass of its own; `total` is what the mean is over. Dropout
        is drawn from `seed` and the part's place: like the order of the data it is a function of the step, so that a
        resumed run needs no generator state, and another number of processes draws the same."""
        ask = self._asking(total, self._estimate(parts))
        self.model.train()
        shares = self.ranks.share(parts)
        told = _Told(self.device)
        for share in shares:
            torch.manual_seed((seed + share.index) % 2**63)
            with self.ranks.syncing(self.reading, last=share is shares[-1]):
                value, sums = self.reading(share.part, ask)
                (value * (share.weight * self.ranks.world)).backward()
            told.add(value, sums, share.weight)
        norm = self._clip()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        loss, metrics = told.over(self.ranks)
        return Stepped(loss, norm, self.objective.metrics(metrics, total))

    def _clip(self) -> float:
        """The gradient's norm over all processes, before it is brought down to the config's."""
        norm = float(whole(torch.nn.utils.clip_grad_norm_(list(self.trained.values()), self.config.clip)))
        if not isfinite(norm):
            raise ConfigError("the gradient is no longer finite", "Lower learning_rate, or train in dtype fp32.")
        return norm

    @torch.no_grad()
    def evaluate(self, parts: Sequence[Packed], *, total: float) -> Stepped:
        """Loss and metrics over all parts. Keeps sums, never logits."""
        ask = self._asking(total, self._estimate(parts))
        self.model.eval()
        told = _Told(self.device)
        for some in _together(parts):
            for share in self.ranks.share(some):
                value, sums = self.reading(share.part, ask)
                told.add(value, sums, share.weight)
        loss, sums = told.over(self.ranks)
        return Stepped(loss, 0.0, self.objective.metrics(sums, total))

    @torch.no_grad()
    def references(self, parts: Sequence[Packed]) -> list[NDArray[np.float32]]:
        """The log-probability of each part's sequences [sequences] under the weights as they are now."""
        self.model.eval()
        shares = self.ranks.share(parts)
        read = [self.reading(share.part, _sequence_logprobs).cpu().numpy() for share in shares]
        own = {share.index: each for share, each in zip(shares, read, strict=True) if share.weight}
        found = {index: each for some in self.ranks.told(own) for index, each in some.items()}
        return [found[index] for index in range(len(parts))]

    @torch.no_grad()
    def _estimate(self, parts: Sequence[Packed]) -> float:
        """What the objective estimates over the sequences beside a whole step's examples."""
        found, looked = torch.zeros(2, dtype=torch.float64), False
        self.model.eval()
        for some in _together(parts):
            beside = [part.beside for part in some if part.beside is not None]
            looked = looked or bool(beside)
            for share in self.ranks.share(beside):
                estimate = self.reading(share.part, self.objective.estimate)
                found += share.weight * torch.tensor(estimate or (0.0, 0.0), dtype=torch.float64)
        if not looked:
            return 0.0
        value, count = self.ranks.summed(found).tolist()
        return value / max(1.0, count)

    def _asking(self, total: float, estimate: float) -> Callable[[Said], tuple[torch.Tensor, dict[str, torch.Tensor]]]:
        def ask(said: Said) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            loss: Loss = self.objective.loss(said, total=total, estimate=estimate)
            return loss.value, dict(loss.sums)

        return ask

    @contextmanager
    def complete(self) -> Iterator[None]:
        """While this lasts, the first process has all of the weights and of the optimiser's state, on its CPU, as if it
        had trained alone. All take part."""
        if self.ranks.shards:
            weights, state = self.weights(), self.optimizer_state()
            self._complete = _Complete(gathered(weights, self.ranks), gathered(state, self.ranks))
        try:
            yield
        finally:
            self._complete = None

    def weights(self) -> Tensors:
        """The trained tensors, by name. Of processes that hold shards: inside `complete` alone."""
        if self._complete is not None:
            return self._complete.weights
        return {name: p.detach() for name, p in self.trained.items()}

    def optimizer_state(self) -> dict[str, Any]:
        """The optimiser's `state_dict`, by parameter number; of shards as `weights`."""
        return self.optimizer.state_dict() if self._complete is None else self._complete.state

    @torch.no_grad()
    def load(self, weights: Tensors) -> None:
        """Take over tensors that a checkpoint kept. Names must agree exactly."""
        if weights.keys() != self.trained.keys():
            raise CheckpointError(
                "the checkpoint holds other tensors than the model trains", "Train from the beginning."
            )
        for name, p in self.trained.items():
            p.copy_(shard_like(weights[name], p))

    def load_optimizer(self, state: dict[str, Any]) -> None:
        """Take over a complete state that a checkpoint kept, whatever number of processes it comes from."""
        order = [p for group in self.optimizer.param_groups for p in group["params"]]
        own = {
            at: {name: shard_like(v, order[at]) if getattr(v, "ndim", 0) else v for name, v in values.items()}
            for at, values in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "state": own})
