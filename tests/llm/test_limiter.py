"""Entering and leaving: in turn, whatever is cancelled, and no faster than the rates allow."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.llm.limiter_sim import Latency, Line

from gristmill.llm.limits.limiter import Limiter
from gristmill.llm.limits.quota import Quota


def fixed(slots: int, **options: object) -> Limiter:
    return Limiter(ceiling=slots, start=slots, adaptive=False, **options)  # type: ignore[arg-type]


async def test_first_come_first_served() -> None:
    limiter, order = fixed(2), []

    async def call(name: int) -> None:
        await limiter.enter(10)
        order.append(name)
        await asyncio.sleep(0.001)
        limiter.left(0.001, 10)

    await asyncio.gather(*(call(name) for name in range(20)))
    assert order == list(range(20))
    assert (limiter.in_flight, limiter.waiting) == (0, 0)


async def test_nobody_overtakes_those_who_wait() -> None:
    limiter = fixed(1)
    assert limiter.try_enter(1)
    waiting = asyncio.ensure_future(limiter.enter(1))
    await asyncio.sleep(0)
    limiter.left(0.1, 1)
    assert not limiter.try_enter(1)
    await waiting
    assert limiter.in_flight == 1


async def test_cancelled_callers_take_nothing() -> None:
    """Whenever they are cancelled: while they wait, or in the same moment in which they are let in."""
    rng = random.Random(3)
    limiter, most = fixed(4), 0

    async def call() -> None:
        nonlocal most
        await limiter.enter(10)
        most = max(most, limiter.in_flight)
        try:
            await asyncio.sleep(rng.random() * 0.002)
        finally:
            limiter.failed()

    tasks = [asyncio.create_task(call()) for _ in range(400)]
    while not all(task.done() for task in tasks):
        for task in rng.sample(tasks, 5):
            task.cancel()
        await asyncio.sleep(0.001)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert most == 4
    assert limiter.in_flight == 0
    assert limiter.try_enter(1)


async def test_let_in_and_cancelled_at_once_hands_the_slot_on() -> None:
    limiter = fixed(1)
    assert limiter.try_enter(1)
    first, second = asyncio.create_task(limiter.enter(1)), asyncio.create_task(limiter.enter(1))
    await asyncio.sleep(0)
    limiter.left(0.1, 1)  # lets the first in, which is cancelled before it runs
    first.cancel()
    await asyncio.wait_for(second, 1)
    assert limiter.in_flight == 1


def test_enter_and_leave_cost_little() -> None:
    """Three microseconds for both is what one call may spend here; the bound leaves room for a busy machine."""
    limiter, rounds = Limiter(ceiling=64, start=64), 20_000
    best = min(_seconds(lambda: _in_and_out(limiter, rounds)) for _ in range(5)) / rounds
    assert best < 10e-6


def _in_and_out(limiter: Limiter, rounds: int) -> None:
    for _ in range(rounds):
        limiter.try_enter(100)
        limiter.left(0.05, 100, None, 50)


def _seconds(what: Callable[[], None]) -> float:
    began = time.perf_counter()
    what()
    return time.perf_counter() - began


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["answer", "answer", "answer", "refuse", "fail", "share"]),
        st.floats(0, 100),  # seconds until it happens
        st.floats(0, 1000),  # Retry-After
        st.integers(0, 10_000),  # tokens
    ),
    max_size=300,
)


@given(EVENTS, st.integers(1, 300), st.integers(1, 300))
def test_whatever_comes_back_the_limit_stays_within_its_bounds(
    events: list[tuple[str, float, float, int]], start: int, ceiling: int
) -> None:
    now, began = 0.0, 0.0
    limiter = Limiter(start=start, ceiling=ceiling, clock=lambda: now)
    for what, seconds, wait, tokens in events:
        while limiter.try_enter(tokens):
            began = now
        now += seconds
        if what == "share":
            limiter.allot(1 / (1 + tokens % 3), 1 + tokens % 3)
        elif limiter.in_flight and what == "answer":
            limiter.left(now - began, tokens, Quota(100, tokens % 100, wait), tokens)
        elif limiter.in_flight and what == "refuse":
            limiter.refused(wait, None, seconds)
        elif limiter.in_flight:
            limiter.failed(seconds)
        assert 1 <= limiter.limit <= ceiling
        assert limiter.in_flight >= 0
        assert limiter.why


# Rates.


def most_in_a_minute(moments: list[float]) -> int:
    first, most = 0, 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= 60:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("rpm", [7, 60, 500, 6000])
def test_no_minute_holds_more_requests_than_are_allowed_and_hardly_fewer(rpm: int) -> None:
    line = Line(Latency(0.2, 0.3), start=200, ceiling=200, options={"rpm": rpm})
    line.looks(0.01, 300).run(300)
    assert most_in_a_minute(line.sent) <= rpm
    assert len(line.sent) >= 0.95 * rpm * 5


def test_tokens_are_counted_as_used_not_as_feared() -> None:
    """Each request may take 1000 tokens and takes 100: ten times as many are sent as the fear would allow."""
    line = Line(Latency(1.0), start=64, ceiling=64, options={"tpm": 60_000})
    line.looks(0.01, 300).run(300)
    used = [tokens for at, tokens in line.answered if 120 <= at < 180]
    assert 54_000 <= sum(used) <= 61_000


async def test_a_rate_is_kept_without_polling() -> None:
    limiter = fixed(100, rpm=6000)
    began = time.monotonic()

    async def call() -> None:
        await limiter.enter(1)
        limiter.left(0.001, 1)

    await asyncio.gather(*(call() for _ in range(51)))
    assert 0.35 <= time.monotonic() - began <= 1.5
    assert limiter.waiting == 0


def test_a_scarce_quota_is_spread_until_it_is_whole_again() -> None:
    now = 100.0
    limiter = Limiter(ceiling=64, start=64, clock=lambda: now)
    assert limiter.try_enter(1)
    limiter.left(0.1, 1, Quota(600, 500, 10.0))
    assert limiter.try_enter(1) and limiter.try_enter(1)  # plenty is left
    limiter.left(0.1, 1, Quota(600, 20, 40.0))
    assert not limiter.try_enter(1)
    now += 2.1  # 40 s for 20 requests
    assert limiter.try_enter(1) and not limiter.try_enter(1)
    limiter.left(0.1, 1, Quota(600, 590, 1.0))
    assert limiter.try_enter(1) and limiter.try_enter(1)


def test_scarce_tokens_are_spread_too_and_a_day_is_not() -> None:
    now = 100.0
    limiter = Limiter(ceiling=64, start=64, clock=lambda: now)
    assert limiter.try_enter(1)
    limiter.left(0.1, 500, Quota(10_000, 400, 50_000.0, 100_000, 5_000, 20.0))
    assert not limiter.try_enter(1)
    now += 2.1  # 500 tokens each, 5000 in 20 s
    assert limiter.try_enter(1)
    limiter.left(0.1, 500, Quota(10_000, 400, 50_000.0, 100_000, 90_000, 2.0))
    assert limiter.try_enter(1) and limiter.try_enter(1)


def test_a_refusal_that_claims_nothing_is_left_holds_nobody_back() -> None:
    limiter = Limiter(ceiling=64, start=64, clock=lambda: 5.0)
    assert limiter.try_enter(1)
    limiter.refused(1.0, Quota(requests_left=0), 0.01)
    assert limiter.try_enter(1) and limiter.try_enter(1)


def test_a_share_divides_slots_and_rates() -> None:
    now = 0.0
    limiter = Limiter(ceiling=8, start=8, rpm=60, clock=lambda: now)
    limiter.allot(0)
    assert not limiter.try_enter(1)
    assert limiter.why == "waits until other processes make room"
    limiter.allot(0.5, 2)
    assert limiter.limit == 4
    assert not limiter.try_enter(1)  # the others have just sent
    now += 2.1
    assert limiter.try_enter(1) and not limiter.try_enter(1)
    now += 1.1
    assert not limiter.try_enter(1)
    limiter.allot(1.0)
    assert limiter.limit == 8


@pytest.mark.parametrize("used", [100, 1000, 10_000])
def test_an_answer_that_comes_while_others_have_the_line_stops_no_rate(used: int) -> None:
    """It is counted by the part there was before; what is counted by no part at all would be due never."""
    now = 0.0
    limiter = fixed(8, tpm=600_000, clock=lambda: now)
    assert limiter.try_enter(1000)
    limiter.left(1.0, 500)
    now += 60
    assert limiter.try_enter(1000)
    limiter.allot(0, 2)
    limiter.left(1.0, used, Quota(600, 20, 1.0))
    limiter.allot(0.5, 2)
    now += 10
    assert limiter.try_enter(1000)
