"""No row is lost to what passes, none waits for another, and what lasts for ever ends soon."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from tests.fakes.fixtures import FakeServer
from tests.llm.conftest import user

from gristmill.core.ask import Model
from gristmill.core.errors import Cancelled, ProviderError
from gristmill.llm import line
from gristmill.llm.budget import Budget, Limits
from gristmill.llm.client import Client
from gristmill.llm.line import Tries
from gristmill.llm.provider import Refused, Unanswered


async def test_nothing_is_lost_with_every_fault_at_once(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.fresh(latency_ms=2, p429=0.1, p500=0.1, phang=0.02, pbadjson=0.05, retry_after=0.1)
    client = make_client()
    asked = model(client=client, concurrency=64, timeout=0.5)
    answers = await asyncio.gather(*(asked.chat(user(f"Question {n} on tides"), max_tokens=30) for n in range(600)))
    stats, counts = fake.stats(), client.counters["qa"]
    assert all(a.text and a.finish == "stop" for a in answers) and len({a.key for a in answers}) == 600
    assert counts["calls"] == 600 and counts["failed"] == 0
    assert counts["retries"] == stats["calls"] - 600
    assert counts["refused"] == stats["statuses"]["429"] > 20 and counts["timeouts"] > 2
    assert client.store.spent("r").calls == 600 + client.store.spent("r").unanswered
    assert len(client.store.calls([a.key for a in answers])) == 600


async def test_what_fails_for_ever_ends_soon_and_holds_up_nobody(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.fresh(poison="hemlock")
    asked = model(client=make_client(), concurrency=2)
    began = time.monotonic()

    async def timed(text: str) -> tuple[object, float]:
        try:
            return await asked.chat(user(text), max_tokens=5), time.monotonic() - began
        except ProviderError as error:
            return error, time.monotonic() - began

    poisoned = [f"Cup {n} of hemlock" for n in range(6)]
    ends = await asyncio.gather(*(timed(text) for text in [*poisoned, *(f"Cup {n} of tea" for n in range(30))]))
    assert all(isinstance(end, ProviderError) and end.transient and "500" in str(end) for end, _ in ends[:6])
    assert max(seconds for _, seconds in ends[6:]) < 2
    assert max(seconds for _, seconds in ends) < 10
    assert fake.stats()["calls"] == 6 * 8 + 30


async def test_a_refusal_is_no_attempt_but_has_an_end(
    fake: FakeServer, model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "LONGEST_REFUSAL", 0.5)
    fake.fresh(p429=1.0, retry_after=0.05)
    with pytest.raises(Refused, match="429"):
        await model(attempts=2).chat(user("Hello"), max_tokens=5)
    assert 8 <= fake.stats()["calls"] <= 11


def test_how_long_is_waited() -> None:
    tries = Tries(8)
    waits = [tries.wait(Unanswered("500", status=500)) for _ in range(8)]
    assert waits[7] is None
    assert all(wait is not None and wait <= 0.25 * 2**n and wait <= 2 for n, wait in enumerate(waits[:7]))
    for error in (Unanswered("torn", charged=True), Unanswered("torn", status=200, charged=True)):
        assert Tries(8).wait(error) == 0.1
    assert 3 <= (Tries(8).wait(Unanswered("busy", status=503, retry_after=3)) or 0) <= 3.3
    assert 3 <= (Tries(1).wait(Refused("busy", status=429, retry_after=3)) or 0) <= 3.3
    assert Tries(8).wait(Refused("closed for today", status=429, retry_after=86400)) is None


@pytest.mark.parametrize("what", ["a refusal", "a slot", "the budget"])
async def test_a_stop_request_ends_every_wait_at_once(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model], what: str
) -> None:
    stop = threading.Event()
    fake.fresh(**({"p429": 1.0, "retry_after": 60} if what == "a refusal" else {"latency_ms": 1500}))
    budget = Budget(Limits(calls=1)) if what == "the budget" else None
    client = make_client(stopping=stop.is_set, budget=budget)
    asked = model(client=client, concurrency=1 if what == "a slot" else 8)
    tasks = [asyncio.create_task(asked.chat(user(f"Question {n}"), max_tokens=5)) for n in range(4)]
    while not fake.stats()["calls"]:
        await asyncio.sleep(0.02)
    began = time.monotonic()
    stop.set()
    waiting = tasks if what == "a refusal" else tasks[1:]
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(end, Cancelled) for end in ends) and time.monotonic() - began < 0.6
    if what != "a refusal":
        assert (await tasks[0]).text  # what is under way is waited for
    assert fake.stats()["calls"] == (4 if what == "a refusal" else 1)
    assert all(line.in_flight == line.waiting == 0 for line in client.lines())


async def test_a_cancelled_caller_is_cancelled(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    """Also while it waits, and also when the run is to stop at that moment."""
    stop = threading.Event()
    fake.fresh(p429=1.0, retry_after=60)
    task = asyncio.create_task(model(client=make_client(stopping=stop.is_set)).chat(user("Hello"), max_tokens=5))
    while not fake.stats()["calls"]:
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.05)
    stop.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
