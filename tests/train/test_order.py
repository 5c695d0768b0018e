"""The order of training: every example once an epoch, inside its row's bounds, whatever was interrupted before."""

from __future__ import annotations

import time
from collections import Counter
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gristmill.train.order import Order, pack

LENGTHS = st.lists(st.integers(1, 90), min_size=1, max_size=60).map(lambda given: np.array(given, np.int64))
Lengths = NDArray[np.int64]

brisk = settings(max_examples=40, deadline=None)


@brisk
@given(LENGTHS, st.integers(-9, 9), st.integers(0, 3))
def test_each_example_lies_in_exactly_one_row_that_holds_it(lengths: Lengths, seed: int, epoch: int) -> None:
    """A row holds the context, or the longest example where that is longer: a pair is never torn apart."""
    plan = pack(lengths, context=64, seed=seed, epoch=epoch)
    sums = [int(lengths[list(row)].sum()) for row in plan]
    most = max(64, int(lengths.max()))
    assert sorted(i for row in plan for i in row) == list(range(len(lengths)))
    assert max(sums) <= most
    assert sums == plan.tokens(lengths).tolist()
    assert sum(2 * used <= most for used in sums) <= 1  # else best fit would have joined two
    again = pack(lengths, context=64, seed=seed, epoch=epoch)
    assert (list(plan), plan.digest) == (list(again), again.digest)


@brisk
@given(LENGTHS)
def test_it_is_best_fit_decreasing(lengths: Lengths) -> None:
    """As the plain algorithm does it, one example after the other: as many rows, filled alike."""
    used: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [at for at, filled in enumerate(used) if filled + length <= 90]
        if not fitting:
            used.append(length)
        else:
            used[max(fitting, key=lambda at: used[at])] += length
    plan = pack(lengths, context=90, seed=0, epoch=0)
    assert sorted(plan.tokens(lengths).tolist()) == sorted(used)


@brisk
@given(LENGTHS, st.integers(0, 9))
def test_the_number_of_rows_depends_on_lengths_alone(lengths: Lengths, seed: int) -> None:
    assert len(pack(lengths, context=64, seed=seed, epoch=0)) == len(pack(lengths, context=64, seed=0, epoch=5))


def test_epochs_and_seeds_are_ordered_differently() -> None:
    lengths = np.full(40, 10)
    plans = [pack(lengths, context=64, seed=seed, epoch=epoch) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({plan.digest for plan in plans}) == len({tuple(plan) for plan in plans}) == 3


def test_without_packing_each_example_is_a_row() -> None:
    plan = pack(np.full(40, 10), context=64, seed=0, epoch=0, packing=False)
    assert sorted(plan) == [(i,) for i in range(40)] != list(plan)


@brisk
@given(LENGTHS, st.integers(1, 4), st.integers(0, 400), st.booleans())
def test_a_step_is_the_same_whoever_asks_and_whenever(lengths: Lengths, rows: int, step: int, packing: bool) -> None:
    """A fresh process asks for one step alone; another comes to it through all before."""
    fresh, walked = (Order(lengths, 64, 7, rows, packing) for _ in range(2))
    every = (step + 1) * rows
    for before in range(max(0, step - 3 * walked.rows_per_epoch), step):
        walked.step(before, rows=every)
    assert walked.step(step, rows=every) == fresh.step(step, rows=every)
    assert fresh._plans.keys() <= {0, *(at // fresh.rows_per_epoch for at in range(step * rows, every))}


@brisk
@given(LENGTHS, st.integers(1, 5), st.integers(1, 4))
def test_nothing_is_lost_or_doubled_over_epochs(lengths: Lengths, rows: int, epochs: int) -> None:
    order = Order(lengths, 64, 3, rows)
    every = order.rows_for(epochs=epochs)
    steps = [order.step(step, rows=every) for step in range(order.steps_for(every))]
    assert all(len(step) == rows for step in steps[:-1])
    assert Counter(i for step in steps for row in step for i in row) == dict.fromkeys(range(len(lengths)), epochs)


@brisk
@given(LENGTHS, st.integers(1, 5), st.integers(1, 1500))
def test_a_budget_of_tokens_ends_with_the_step_that_reaches_it(lengths: Lengths, rows: int, tokens: int) -> None:
    order = Order(lengths, 64, 3, rows)
    steps = order.rows_for(tokens=tokens) // rows
    read = [int(sum(lengths[list(row)].sum() for row in order.step(s, rows=steps * rows))) for s in range(steps)]
    seen = list(accumulate(read))
    assert seen[-1] >= tokens
    assert steps == 1 or seen[-2] < tokens


@brisk
@given(LENGTHS, st.integers(1, 9), st.integers(1, 200))
def test_passes_and_shards_cover_a_step_once(lengths: Lengths, world: int, tokens: int) -> None:
    order = Order(lengths, 64, 3, rows_per_step=8)
    step = order.step(0, rows=8)
    passes = order.passes(step, tokens=tokens)
    assert [i for part in passes for i in part] == [i for row in step for i in row]
    assert all(part in step or lengths[list(part)].sum() <= tokens for part in passes)
    shards = [passes[rank::world] for rank in range(world)]
    assert sorted(part for shard in shards for part in shard) == sorted(passes)


def test_steps_are_full_across_epochs_and_budgets_come_to_rows() -> None:
    order = Order(np.full(5, 64), context=64, seed=1, rows_per_step=2)
    assert order.rows_for(epochs=2) == 10
    assert order.rows_for(steps=3) == 6
    assert order.rows_for(tokens=129) == 4
    assert [len(order.step(step, rows=9)) for step in range(order.steps_for(9))] == [2, 2, 2, 2, 1]


@pytest.mark.parametrize(("count", "passes"), [(1, 1), (16, 1), (17, 2), (32, 2)])
def test_rows_are_joined_into_forward_passes(count: int, passes: int) -> None:
    order = Order(np.full(count, 64), context=64, seed=1, rows_per_step=count)
    assert len(order.passes(order.step(0, rows=count))) == passes


def test_a_million_examples_are_ordered_in_a_moment() -> None:
    """Measured: 0.2 CPU-seconds, and a budget of 10^15 tokens costs one plan more."""
    lengths = np.clip(np.random.default_rng(0).lognormal(5, 0.7, 10**6), 2, 2048).astype(np.int64)
    begun = time.process_time()
    order = Order(lengths, 2048, seed=1, rows_per_step=8)
    steps = order.rows_for(tokens=10**15) // 8
    assert order.step(steps - 1, rows=steps * 8)
    assert order.digest(0) != order.digest(1)
    assert lengths.sum() > 0.999 * 2048 * (order.rows_per_epoch - 1)
    assert time.process_time() - begun < 5
