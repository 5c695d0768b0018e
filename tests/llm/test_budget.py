"""Within an attempt no limit is overshot, whatever is in flight; and none is given up while room may come free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.fixtures import FakeServer
from tests.llm.conftest import user

from gristmill.core.ask import Model
from gristmill.core.errors import BudgetError
from gristmill.core.store import Spent
from gristmill.llm.budget import Budget, Limits
from gristmill.llm.client import Client


async def until_stopped(model: Model, count: int) -> int:
    """How many of `count` questions were answered before the budget ended."""
    results = await asyncio.gather(
        *(model.chat(user(f"Question {n} about the harbour"), max_tokens=20) for n in range(count)),
        return_exceptions=True,
    )
    assert all(not isinstance(r, BaseException) or isinstance(r, BudgetError) for r in results)
    return sum(not isinstance(r, BaseException) for r in results)


async def test_calls_with_64_in_flight(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(latency_ms=10, p500=0.2)
    client = make_client(budget=Budget(Limits(calls=100)))
    assert await until_stopped(model(client=client, concurrency=64), 300) == 100
    assert fake.stats()["statuses"]["200"] == 100
    assert client.store.spent("r").calls == 100


async def test_tokens_with_64_in_flight(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(latency_ms=10)
    client = make_client(budget=Budget(Limits(tokens=3000)))
    answered = await until_stopped(model(client=client, concurrency=64), 400)
    spent = client.store.spent("r")
    assert 3000 - 100 <= spent.tokens_in + spent.tokens_out <= 3000  # one more reservation would not have fitted
    assert answered == spent.calls < 400


async def test_the_budget_goes_on_where_the_run_stopped(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    first = make_client(budget=Budget(Limits(calls=10)))
    assert await until_stopped(model(client=first), 30) == 10
    again = make_client(budget=Budget(Limits(calls=10), spent=first.store.spent("r")))
    assert await until_stopped(model(client=again), 30) == 10  # the ten that are kept cost nothing
    raised = make_client(budget=Budget(Limits(calls=25), spent=first.store.spent("r")))
    assert await until_stopped(model(client=raised), 30) == 25
    assert fake.stats()["calls"] == 25


async def test_unknown_usage_costs_what_was_reserved(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(no_usage=True)
    client = make_client()
    answer = await model(client=client).chat(user("How deep is the harbour?"), max_tokens=20)
    assert not answer.usage.known
    spent = client.store.spent("r")
    assert spent.tokens_out == 20 and spent.tokens_in >= len("How deep is the harbour?")
    assert client.budget.tokens == spent.tokens_in + spent.tokens_out


async def test_an_answer_that_never_came_may_still_be_billed(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(phang=1.0)
    client = make_client()
    asked = asyncio.create_task(model(client=client).chat(user("Hello"), max_tokens=20))
    while fake.stats()["calls"] == 0:
        await asyncio.sleep(0.01)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert client.budget.calls == 1 and client.budget.tokens > 20


async def test_seconds_count_over_all_attempts() -> None:
    now = [100.0]
    budget = Budget(Limits(seconds=60), elapsed=50, clock=lambda: now[0])
    budget.release(await budget.reserve(1))
    now[0] += 10
    with pytest.raises(BudgetError, match="60 seconds") as caught:
        await budget.reserve(1)
    assert "raise budget.seconds" in caught.value.hint and caught.value.exit_code == 7


async def test_who_does_not_fit_beside_the_others_waits_and_who_never_fits_is_told() -> None:
    budget = Budget(Limits(tokens=100), spent=Spent(1, 10, 10))
    held = await budget.reserve(60)
    waiting = asyncio.create_task(budget.reserve(50))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    with pytest.raises(BudgetError, match="100 tokens"):
        await budget.reserve(81)
    budget.settle(held, 20)
    assert (await waiting).tokens == 50
    assert budget.tokens == 40


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 400),
    costs=st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1), st.booleans()), max_size=40),
)
def test_never_over_the_limit(limit: int, costs: list[tuple[int, float, bool]]) -> None:
    """Whatever calls reserve, and whatever share of it they cost, in whatever order they end."""

    async def main() -> None:
        budget = Budget(Limits(tokens=limit))
        used = 0

        async def call(tokens: int, share: float, refused: bool) -> None:
            nonlocal used
            held = await budget.reserve(tokens)
            await asyncio.sleep(share / 1e6)
            used += 0 if refused else int(tokens * share)
            assert used <= limit
            if refused:
                budget.release(held)
            else:
                budget.settle(held, int(tokens * share))

        results = await asyncio.gather(*(call(*cost) for cost in costs), return_exceptions=True)
        assert all(r is None or isinstance(r, BudgetError) for r in results)
        assert budget.tokens == used <= limit

    asyncio.run(main())
