"""Packing: sequences laid one after the other, cut without loss, asked only for what is theirs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gristmill.train.packing import Example, Tokens, collate


@given(st.integers(1, 200), st.integers(2, 50), st.randoms(use_true_random=False))
def test_pieces_keep_every_supervised_token_once(length: int, context: int, random: object) -> None:
    mask = np.array([random.random() < 0.5 for _ in range(length)])  # type: ignore[attr-defined]
    whole = Tokens(np.arange(length), mask)
    pieces = whole.pieces(context)
    assert all(len(piece) <= context for piece in pieces)
    asked = [int(t) for piece in pieces for t in collate([Example((piece,))]).targets]
    assert asked == [t for t in range(1, length) if mask[t]]


def test_a_position_is_asked_for_its_own_sequence_only() -> None:
    a = Tokens(np.array([5, 6, 7]), np.array([True, True, True]))
    b = Tokens(np.array([8, 9]), np.array([True, True]))
    packed = collate([Example((a,)), Example((b,))])
    assert packed.ids.tolist() == [5, 6, 7, 8, 9]
    assert packed.positions.tolist() == [0, 1, 2, 0, 1]
    assert packed.ask.tolist() == [0, 1, 3]
    assert packed.targets.tolist() == [6, 7, 9]  # 8, the first of its sequence, is asked of nobody
