"""What the model reads, and what it says of it. An objective asks `Said`, and never touches the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from gristmill.train.loss import Head, linear_cross_entropy, linear_logprobs
from gristmill.train.packing import Packed


@dataclass(frozen=True)
class Batch:
    """A `Packed` as tensors on the model's device; shapes are said there."""

    ids: torch.Tensor
    positions: torch.Tensor
    lengths: tuple[int, ...]
    ask: torch.Tensor
    targets: torch.Tensor
    owner: torch.Tensor
    ends: torch.Tensor
    group: torch.Tensor
    values: torch.Tensor
    reference: torch.Tensor

    @classmethod
    def of(cls, packed: Packed, device: torch.device) -> Batch:
        def move(name: str) -> torch.Tensor:
            return torch.from_numpy(getattr(packed, name)).to(device, non_blocking=True)

        names = ("ids", "positions", "ask", "targets", "owner", "ends", "group", "values", "reference")
        return cls(lengths=packed.lengths, **{name: move(name) for name in names})

    @property
    def sequences(self) -> int:
        return len(self.lengths)


class Said:
    """What the model says of one batch. Nothing is computed before an objective asks for it."""

    def __init__(
        self,
        batch: Batch,
        hidden: torch.Tensor,
        *,
        head: Head | None = None,
        score: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """`hidden` [tokens, width]: the last hidden states; then the model's head, whichever it has."""
        self.batch = batch
        self._hidden = hidden
        self._head = head
        self._score = score

    def cross_entropy(self, weights: torch.Tensor | None = None, *, total: float) -> torch.Tensor:
        """Σ weight · -log p(target) / total over the asked positions. Fused: the gradient is made in the forward pass.
        For losses that are linear in the log-probabilities; `weights` [asked] carry no gradient."""
        return linear_cross_entropy(self._asked, self._tokens, self.batch.targets, weights=weights, total=total)

    def logprobs(self) -> torch.Tensor:
        """log p(target) [asked], fp32: for losses that are not linear in them. The backward pass computes the logits
        of each chunk once more."""
        return linear_logprobs(self._asked, self._tokens, self.batch.targets)

    def sequence_logprobs(self, *, mean: bool = False) -> torch.Tensor:
        """The log-probability of each sequence's supervised tokens [sequences]; `mean`: per token."""
        each = self.logprobs()
        sums = torch.zeros(self.batch.sequences, dtype=each.dtype, device=each.device)
        sums = sums.index_add(0, self.batch.owner, each)
        return sums / self.counts().clamp(min=1) if mean else sums

    def counts(self) -> torch.Tensor:
        """Supervised tokens of each sequence [sequences]."""
        return torch.bincount(self.batch.owner, minlength=self.batch.sequences)

    def scores(self) -> torch.Tensor:
        """The score head at each sequence's last token [sequences, labels], fp32."""
        if self._score is None:
            raise TypeError("this model has no score head: the objective's `head` is not `score`")
        return self._score(self._hidden.index_select(0, self.batch.ends).float())

    @property
    def _asked(self) -> torch.Tensor:
        return self._hidden.index_select(0, self.batch.ask)

    @property
    def _tokens(self) -> Head:
        if self._head is None:
            raise TypeError("this model has a score head alone: the objective's `head` is not `tokens`")
        return self._head
