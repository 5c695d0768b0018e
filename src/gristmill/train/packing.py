"""What is learned from, and how it is laid out for the model: one sequence after the other, without padding.

Sequences never see each other: their boundaries travel with the row (`attention`), and positions restart in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tokens:
    """A sequence of token ids, and for each whether it is supervised. The first has nothing before it to be
    predicted from."""

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    left_out: int = 0  # tokens that followed, beyond the context

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def supervised(self) -> int:
        return int(self.mask[1:].sum())

    def first(self, context: int) -> Tokens:
        """Its beginning; what lies beyond the context is left out."""
        left_out = max(0, len(self) - context)
        return Tokens(self.ids[:context], self.mask[:context], left_out) if left_out else self

    def pieces(self, context: int) -> list[Tokens]:
        """Consecutive pieces of at most `context` tokens. Each begins with the last token of the one before,
        unsupervised there, so that no supervised token is lost or asked twice."""
        if len(self) <= context:
            return [self]
        out = [Tokens(self.ids[:context], self.mask[:context])]
        for start in range(context - 1, len(self) - 1, context - 1):
            mask = self.mask[start : start + context].copy()
            mask[0] = False
            out.append(Tokens(self.ids[start : start + context], mask))
        return out


@dataclass(frozen=True)
class Example:
    """What is learned from at once and never separated: one sequence, or several that a loss compares.

    `values` are numbers that the objective needs (a class, a rating). Sequences `beside` are only looked at, without
    a gradient, when the objective estimates something over a whole step.
    """

    sequences: tuple[Tokens, ...]
    values: tuple[float, ...] = ()
    beside: tuple[Tokens, ...] = ()

    def __len__(self) -> int:
        """Tokens of its sequences."""
        return sum(len(sequence) for sequence in self.sequences)

    @property
    def supervised(self) -> int:
        return sum(sequence.supervised for sequence in self.sequences)


@dataclass(frozen=True)
class Packed:
    """Examples one after the other, as the model reads them."""

    ids: NDArray[np.int64]  # [tokens]
    positions: NDArray[np.int64]  # [tokens], from 0 in each sequence
    lengths: tuple[int, ...]  # [sequences]
    ask: NDArray[np.int64]  # [asked] positions whose next token is supervised
    targets: NDArray[np.int64]  # [asked] those tokens
    owner: NDArray[np.int64]  # [asked] the sequence of each
    ends: NDArray[np.int64]  # [sequences] position of each one's last token
    group: NDArray[np.int64]  # [sequences] the example of each
    values: NDArray[np.float32]  # [examples, values]
    reference: NDArray[np.float32]  # [sequences] log-probability under the starting weights; empty where none is needed
    beside: Packed | None = None  # the sequences beside these examples


def collate(examples: Sequence[Example], *, reference: Sequence[NDArray[np.float32]] = ()) -> Packed:
    """Lay examples one after the other. A position is asked for its next token only inside its own sequence.

    `reference`: of each example, the log-probabilities under the starting weights of its sequences, then of those
    beside it.
    """
    own = [len(example.sequences) for example in examples]
    packed = _laid([e.sequences for e in examples], examples, [r[:n] for r, n in zip(reference, own, strict=False)])
    if not any(example.beside for example in examples):
        return packed
    beside = _laid([e.beside for e in examples], examples, [r[n:] for r, n in zip(reference, own, strict=False)])
    return replace(packed, beside=beside)


def _laid(
    sequences: Sequence[Sequence[Tokens]], examples: Sequence[Example], reference: Sequence[NDArray[np.float32]]
) -> Packed:
    flat = [tokens for group in sequences for tokens in group]
    lengths = [len(tokens) for tokens in flat]
    mask = np.concatenate([np.r_[False, tokens.mask[1:]] for tokens in flat])
    wanted = np.flatnonzero(mask)
    ids = np.concatenate([tokens.ids for tokens in flat]).astype(np.int64)
    return Packed(
        ids=ids,
        positions=np.concatenate([np.arange(n, dtype=np.int64) for n in lengths]),
        lengths=tuple(lengths),
        ask=wanted - 1,
        targets=ids[wanted],
        owner=np.repeat(np.arange(len(flat)), lengths)[wanted],
        ends=np.cumsum(lengths) - 1,
        group=np.repeat(np.arange(len(examples)), [len(group) for group in sequences]),
        values=np.array([e.values for e in examples], np.float32),
        reference=np.concatenate(reference) if reference else np.empty(0, np.float32),
    )
