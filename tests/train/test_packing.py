"""Packing: every sequence once, inside its row's bounds, in an order that two numbers give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.train.packing import Example, Order, Tokens, collate, pack

LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=60)


@given(LENGTHS, st.integers(0, 9), st.integers(0, 3))
def test_each_sequence_lies_in_exactly_one_row_that_holds_it(lengths: list[int], seed: int, epoch: int) -> None:
    rows = pack(lengths, context=64, seed=seed, epoch=epoch)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in row) <= 64 for row in rows)
    assert rows == pack(lengths, context=64, seed=seed, epoch=epoch)
    half_full = [row for row in rows if sum(lengths[i] for i in row) <= 32]
    assert len(half_full) <= 1  # else best fit would have joined two


@given(LENGTHS, st.integers(0, 9))
def test_the_number_of_rows_depends_on_lengths_alone(lengths: list[int], seed: int) -> None:
    assert len(pack(lengths, context=64, seed=seed, epoch=0)) == len(pack(lengths, context=64, seed=0, epoch=5))


def test_epochs_are_ordered_differently() -> None:
    lengths = [10] * 40
    assert pack(lengths, context=64, seed=0, epoch=0) != pack(lengths, context=64, seed=0, epoch=1)
    assert pack(lengths, context=64, seed=0, epoch=0) != pack(lengths, context=64, seed=1, epoch=0)


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


def test_steps_are_full_across_epochs_and_budgets_come_to_rows() -> None:
    order = Order((64,) * 5, context=64, seed=1, rows_per_step=2)
    assert order.rows_for(epochs=2) == 10
    assert order.rows_for(steps=3) == 6
    assert order.rows_for(tokens=129) == 4
    steps = [order.step(step, rows=9) for step in range(order.steps_for(9))]
    assert [len(rows) for rows in steps] == [2, 2, 2, 2, 1]
    seen = [i for rows in steps for row in rows for i in row]
    assert sorted(seen[:5]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("count", "passes"), [(1, 1), (16, 1), (17, 2), (32, 2)])
def test_rows_are_joined_into_forward_passes(count: int, passes: int) -> None:
    order = Order((64,) * count, context=64, seed=1, rows_per_step=count)
    assert len(order.passes(order.step(0, rows=count))) == passes
