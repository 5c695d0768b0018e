"""The limiter before servers of every kind, in virtual time: it finds what each can do, without being told."""

from __future__ import annotations

import pytest
from tests.llm.limiter_sim import Batch, Latency, Line, Refusing, Slots, tokens_between

SEEDS = pytest.mark.parametrize("seed", [1, 2, 3])
ANSWERS = tokens_between(16, 200)  # tokens


def test_a_server_without_limits_is_used_to_the_ceiling_at_once() -> None:
    line = Line(Latency(0.05, 0.01)).run(2)
    passed = next(at for at, limit in line.limits if limit >= 64)
    assert passed < 0.6
    assert line.limiter.limit == 256


def test_a_concurrency_from_the_recipe_is_where_it_starts_and_ends() -> None:
    line = Line(Latency(0.05, 0.01), start=64, ceiling=64).run(10)
    assert {limit for _, limit in line.limits} == {64}


@SEEDS
@pytest.mark.parametrize("slots", [1, 4, 12])
def test_a_server_that_queues_is_kept_busy_with_little_queue(slots: int, seed: int) -> None:
    line = Line(Slots(slots, 0.01, noise=0.3), tokens=ANSWERS, seed=seed).run(1200)
    assert line.rate(0) >= 0.93 * slots * 100
    assert line.mean_limit(600) <= 2 * slots + 12
    assert "best rate" in line.limiter.why or "climbing" in line.limiter.why


@SEEDS
def test_a_machine_that_others_slow_down_and_leave_again_is_still_used(seed: int) -> None:
    server = Slots(4, 0.01, noise=0.2)
    line = Line(server, tokens=ANSWERS, seed=seed)
    ideal = 0.0
    for slowness in (1.0, 3.0, 1.0, 1.7, 0.6, 2.5, 1.0) * 3:
        server.slowness = slowness
        line.run(60)
        ideal += 60 * 400 / slowness
    assert line.rate(0) * line.now >= 0.93 * ideal


@SEEDS
def test_a_server_that_batches_is_filled_while_that_gains(seed: int) -> None:
    line = Line(Batch(0.01, 0.0005), tokens=tokens_between(50, 400), seed=seed).run(900)
    best = 256 / (0.01 + 256 * 0.0005)
    assert line.rate(300) >= 0.93 * best


@SEEDS
def test_refusals_that_concurrency_does_not_change_do_not_strangle_the_line(seed: int) -> None:
    """The bench's case: 64 in flight, 50 ms, one in ten refused with Retry-After 1 s."""
    line = Line(Refusing(Latency(0.05), share=0.1), start=64, ceiling=64, seed=seed).run(30)
    assert line.mean_limit(0) >= 62
    unset = Line(Refusing(Latency(0.05), share=0.1), seed=seed).run(30)
    assert unset.mean_limit(0) >= 230


def test_the_limit_falls_once_per_burst() -> None:
    line = Line(Refusing(Latency(0.05), share=0.1, wait=1.0), start=64, ceiling=64).run(1.0)
    below = [limit for _, limit in line.limits if limit < 64]
    assert len(line.refused) > 20
    assert min(below) == 44
    assert line.limiter.limit == 64


@SEEDS
def test_a_real_ceiling_is_found_and_remembered(seed: int) -> None:
    line = Line(Refusing(Latency(0.05, 0.02), most=40), seed=seed).run(60)
    assert line.rate(10) >= 0.93 * 40 / 0.06 * 100
    assert line.mean_limit(10) <= 46
    learned = line.limiter.learned()
    assert 30 <= learned["level"] <= 44
    later = Line(Latency(0.05), seed=seed)
    later.limiter.recall(learned)
    assert later.limiter.limit == learned["level"]


@SEEDS
def test_a_rate_that_the_server_keeps_is_reached_and_hardly_passed(seed: int) -> None:
    line = Line(Refusing(Latency(0.05, 0.02), per_second=100), seed=seed).run(60)
    assert line.rate(5) >= 0.93 * 100 * 100
    assert line.mean_limit(5) <= 10


@SEEDS
def test_queues_and_chance_refusals_together(seed: int) -> None:
    line = Line(Refusing(Slots(4, 0.01, noise=0.2), share=0.1), tokens=ANSWERS, seed=seed).run(900)
    assert line.rate(0) >= 0.93 * 400


def test_a_line_that_its_caller_does_not_fill_is_not_judged() -> None:
    line = Line(Latency(0.05), callers=3).run(100)
    assert line.limiter.limit == 8
