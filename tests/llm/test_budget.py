"""No limit is overshot, whatever is in flight and however often it is killed; none is given up while room may come."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.fixtures import FakeServer
from tests.llm.conftest import user

from gristmill.core.ask import Model
from gristmill.core.errors import BudgetError, ConfigError
from gristmill.core.store import Hold, Store, open_store
from gristmill.llm.budget import KILLED, Bid, Budget, Limits
from gristmill.llm.client import Client

PRICE = {"input": 0.5, "output": 2.0}  # $ for a million tokens


class Meter:
    """A server that bills what arrives, whoever dies."""

    def __init__(self, url: str) -> None:
        self.url = url

    def bill(self) -> dict[str, int]:
        with urllib.request.urlopen(self.url.replace("/v1", "/stats"), timeout=20) as reply:
            return json.load(reply)

    def nano(self) -> int:
        bill = self.bill()
        return bill["tokens_in"] * 500 + bill["tokens_out"] * 2000

    def fresh(self, **options: Any) -> None:
        options = {"latency_ms": 5, "p500": 0.0, "phang": 0.0, "usage": True, **options}
        urllib.request.urlopen(self.url.replace("/v1", "/options"), json.dumps(options).encode(), timeout=20).close()


@pytest.fixture(scope="module")
def one_meter() -> Iterator[Meter]:
    command = [sys.executable, str(Path(__file__).parents[1] / "fakes" / "meter.py")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Meter(json.loads(process.stdout.readline())["url"])
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def meter(one_meter: Meter) -> Meter:
    one_meter.fresh()
    return one_meter


def budget(client_store: Store, **limits: float) -> Budget:
    return Budget(Limits(**limits), store=client_store, run="r")  # type: ignore[arg-type]


async def until_stopped(model: Model, count: int, *, max_tokens: int = 40) -> int:
    """How many of `count` questions were answered before the budget ended."""
    results = await asyncio.gather(
        *(model.chat(user(f"Question {n} about the harbour"), max_tokens=max_tokens) for n in range(count)),
        return_exceptions=True,
    )
    assert all(not isinstance(r, BaseException) or isinstance(r, BudgetError) for r in results), results
    return sum(not isinstance(r, BaseException) for r in results)


async def test_dollars_with_256_in_flight(
    meter: Meter, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    meter.fresh(latency_ms=20, p500=0.1)
    store = make_client().store
    client = make_client(budget=budget(store, usd=0.02))
    asked = model(client=client, base_url=meter.url, concurrency=256, price=PRICE)
    answered = await until_stopped(asked, 1500)
    spent = store.spent("r")
    assert answered == spent.calls == meter.bill()["calls"] < 1500
    assert spent.nano_usd == meter.nano() <= 20_000_000
    assert spent.nano_usd > 20_000_000 - 120_000  # one more reservation would not have fitted
    assert client.counters["qa"]["usd"] == pytest.approx(spent.usd) == pytest.approx(client.budget.usd)


@pytest.mark.parametrize("limit", ["calls", "tokens"])
async def test_calls_and_tokens_with_64_in_flight(
    meter: Meter, make_client: Callable[..., Client], model: Callable[..., Model], limit: str
) -> None:
    meter.fresh(p500=0.2)
    store = make_client().store
    client = make_client(budget=budget(store, **{limit: 100 if limit == "calls" else 3000}))
    answered = await until_stopped(model(client=client, base_url=meter.url, concurrency=64), 400)
    bill, spent = meter.bill(), store.spent("r")
    assert (spent.calls, spent.tokens_in, spent.tokens_out) == (bill["calls"], bill["tokens_in"], bill["tokens_out"])
    assert answered == 100 if limit == "calls" else 3000 - 120 <= bill["tokens_in"] + bill["tokens_out"] <= 3000


async def test_the_run_goes_on_when_the_limit_is_raised(
    meter: Meter, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    store = make_client().store
    for limit, answered in ((10, 10), (10, 10), (25, 25)):
        client = make_client(budget=budget(store, calls=limit))
        assert await until_stopped(model(client=client, base_url=meter.url), 30) == answered
        await client.close()
    assert meter.bill()["calls"] == 25


async def test_unknown_usage_costs_what_was_reserved(
    meter: Meter, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    meter.fresh(usage=False)
    client = make_client()
    answer = await model(client=client, base_url=meter.url, price=PRICE).chat(user("How deep?"), max_tokens=20)
    spent = client.store.spent("r")
    assert not answer.usage.known
    assert (spent.tokens_out, client.budget.tokens) == (20, spent.tokens_in + 20)
    assert spent.nano_usd == spent.tokens_in * 500 + 20 * 2000


async def test_an_answer_that_never_came_may_still_be_billed(
    meter: Meter, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    """Given up by its caller, or timed out: charged in the store, and told apart from what was answered."""
    meter.fresh(phang=1.0)
    client = make_client()
    asked = asyncio.create_task(model(client=client, base_url=meter.url).chat(user("Hello"), max_tokens=20))
    while meter.bill()["calls"] == 0:
        await asyncio.sleep(0.01)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await client.close()
    spent = client.store.spent("r")
    assert (spent.calls, spent.unanswered) == (1, 1) and spent.tokens_out == 20
    with pytest.raises(Exception, match="did not answer"):
        await model(client=client, base_url=meter.url, timeout=0.1, attempts=3).chat(user("Hi"), max_tokens=20)
    spent = client.store.spent("r")
    assert (spent.calls, spent.unanswered) == (4, 4)
    assert client.counters["qa"]["timeouts"] == 3 and client.counters["qa"]["retries"] == 2


async def test_a_budget_in_dollars_needs_prices(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    client = make_client(budget=Budget(Limits(usd=1)))
    with pytest.raises(ConfigError, match=r"needs the price of models\.writer \(m\)"):
        model(client=client, base_url="https://llm.example.com/v1")
    assert (await model(client=client).chat(user("Hello"), max_tokens=5)).text  # here, on loopback, it costs nothing


async def test_seconds_count_over_all_attempts() -> None:
    now = [100.0]
    held = Budget(Limits(seconds=60), elapsed=50, clock=lambda: now[0])
    await held.reserve(Bid(1))
    held.release(Bid(1))
    assert held.out_of_time() is None
    now[0] += 10
    assert held.out_of_time() is not None
    with pytest.raises(BudgetError, match="60 seconds") as caught:
        await held.reserve(Bid(1))
    assert "raise budget.seconds" in caught.value.hint and caught.value.exit_code == 7


async def test_who_does_not_fit_beside_the_others_waits_in_turn_and_who_never_fits_is_told() -> None:
    held = Budget(Limits(tokens=100))
    first, large, small = Bid(60), Bid(50), Bid(1)
    await held.reserve(first)
    waiting = [asyncio.create_task(held.reserve(bid)) for bid in (large, small, Bid(81), Bid(30))]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    waiting[3].cancel()
    held.settle(first, 20, 0)
    await asyncio.gather(*waiting[:2])
    with pytest.raises(BudgetError, match="the next call may take 81"):
        await waiting[2]
    held.release(large)
    held.settle(small, 1, 0)
    assert (held.tokens, held.calls) == (21, 2)


async def test_what_is_in_flight_stands_in_the_store_and_is_cleared_by_a_clean_end(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    held = budget(store, usd=1, tokens=1000)
    bids = [Bid(10, 500) for _ in range(64)]
    await asyncio.gather(*(held.reserve(bid) for bid in bids))
    assert store.held("r") == Hold(81, 801, 40_001)  # and a quarter more
    for bid in bids:
        held.settle(bid, 5, 250)
    await held.close()
    assert store.held("r") == Hold()
    store.close()


async def test_what_a_killed_attempt_held_is_charged_as_far_as_there_was_room(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    await store.hold("r", 10, 400, 9_000)
    for _ in range(2):  # charged once, by the first who sends
        held = budget(store, tokens=300, calls=50)
        assert (held.calls, held.tokens) == (10, 300)
        with pytest.raises(BudgetError, match="300 tokens"):
            await held.reserve(Bid(1))
    raised = budget(store, tokens=1000, calls=50)
    await raised.reserve(Bid(1))
    raised.settle(Bid(1), 1, 0)
    await raised.close()
    assert (raised.calls, raised.tokens) == (11, 401)
    spent = store.spent_by_stage("r")[KILLED, ""]
    assert (spent.calls, spent.unanswered, spent.nano_usd) == (10, 10, 9_000)
    assert store.held("r") == Hold()
    store.close()


KILLABLE = """
import asyncio, sys
from pathlib import Path
from gristmill.core.errors import BudgetError
from gristmill.core.records import Message
from gristmill.core.store import open_store
from gristmill.llm.budget import Budget, Limits
from gristmill.llm.client import Client
from gristmill.llm.spec import OpenAISpec

async def main(folder, url, usd):
    store = open_store(Path(folder) / "store.db")
    budget = Budget(Limits(usd=float(usd)), store=store, run="r")
    client = Client(store, workspace=Path(folder), run="r", budget=budget)
    spec = OpenAISpec(provider="openai", model="m", base_url=url, concurrency=64, price={"input": 0.5, "output": 2.0})
    model = client.model("writer", spec, stage="qa")
    async def one(n):
        try:
            await model.chat([Message(role="user", content=f"Question {n} on tides")], max_tokens=40)
        except BudgetError:
            return
        print(n, flush=True)
    await asyncio.gather(*(one(n) for n in range(1000)))
    await client.close()
    store.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_the_budget_holds_across_kills(meter: Meter, tmp_path: Path) -> None:
    """Four kills with 64 in flight: what the server billed in all stays below the limit, and below what is booked."""
    meter.fresh(latency_ms=30)
    usd = 0.04
    for kill in range(5):
        command = [sys.executable, "-c", KILLABLE, str(tmp_path), meter.url, str(usd)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if kill < 4:
            for _ in range(70):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == 0
    store = open_store(tmp_path / "store.db")
    spent, billed = store.spent("r"), meter.nano()
    assert billed <= spent.nano_usd <= usd * 1e9
    assert spent.unanswered <= 4 * 81 and store.held("r") == Hold()
    store.close()


FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from gristmill.core.errors import StoreError
from gristmill.core.records import Message
from gristmill.core.store import open_store
from gristmill.llm.budget import Budget, Limits
from gristmill.llm.client import Client
from gristmill.llm.spec import OpenAISpec

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]

async def main(folder, url, freed):
    store = open_store(Path(folder) / "store.db")
    client = Client(store, workspace=Path(folder), run="r", budget=Budget(Limits(usd=1), store=store, run="r"))
    spec = OpenAISpec(provider="openai", model="m", base_url=url, concurrency=8, price={"input": 0.5, "output": 2.0})
    model = client.model("writer", spec, stage="qa")
    ask = lambda n: model.chat([Message(role="user", content=f"Question {n} on tides")], max_tokens=40)
    await asyncio.gather(*map(ask, range(8)))
    log = (Path(folder) / "store.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (log, hard))
    ends = await asyncio.gather(*map(ask, range(8, 12)), return_exceptions=True)
    assert all(isinstance(end, StoreError) for end in ends), ends
    assert client.lines()[0].in_flight == 0
    if freed == "True":
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await client.close()
    else:
        try:
            await client.close()
        except StoreError as error:
            assert "cannot be written" in error.message
        else:
            raise AssertionError("nobody heard that the hold stands")
    store.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("freed", [True, False])
async def test_what_a_full_disk_could_not_take_is_charged_by_the_next_attempt(
    meter: Meter, tmp_path: Path, freed: bool
) -> None:
    """What was billed and not written stays held: to the nano-dollar where the disk had room again at the end."""
    command = [sys.executable, "-c", FULL, str(tmp_path), meter.url, str(freed)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    store = open_store(tmp_path / "store.db")
    spent, left, billed = store.spent("r"), store.held("r"), meter.nano()
    assert (spent.calls, meter.bill()["calls"]) == (8, 12) and spent.nano_usd < billed
    assert left.calls == 4 if freed else left.calls >= 4
    assert spent.nano_usd + left.nano_usd == billed if freed else spent.nano_usd + left.nano_usd >= billed
    held = budget(store, usd=1)
    assert held.usd * 1e9 == pytest.approx(spent.nano_usd + left.nano_usd)
    await held.close()
    assert store.spent("r").nano_usd == spent.nano_usd + left.nano_usd and store.held("r") == Hold()
    store.close()


async def test_what_was_lost_stays_held_beside_what_comes_after(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.db")
    held = budget(store, calls=20)
    bids = [Bid(10) for _ in range(12)]
    await asyncio.gather(*map(held.reserve, bids))
    for bid in bids:
        held.lost(bid, 10, 0)
    more = [Bid(10) for _ in range(8)]
    await asyncio.gather(*map(held.reserve, more))
    assert store.held("r").calls >= 20
    for bid in more:
        held.settle(bid, 10, 0)
    with pytest.raises(BudgetError, match="20 calls"):
        await held.reserve(Bid(10))
    await held.close()
    assert store.held("r") == Hold(12, 120, 0)
    store.close()


@settings(max_examples=60, deadline=None)
@given(
    limit=st.integers(1, 400),
    costs=st.lists(st.tuples(st.integers(1, 60), st.floats(0, 1), st.sampled_from("sru")), max_size=40),
)
def test_never_over_the_limit(limit: int, costs: list[tuple[int, float, str]]) -> None:
    """Whatever calls reserve, and whatever share of it they cost, in whatever order they end."""

    async def main() -> None:
        held = Budget(Limits(tokens=limit))
        used = 0

        async def call(tokens: int, share: float, end: str) -> None:
            nonlocal used
            bid = Bid(tokens)
            await held.reserve(bid)
            await asyncio.sleep(share / 1e6)
            used += {"s": int(tokens * share), "r": 0, "u": tokens}[end]
            assert used <= limit
            if end == "r":
                held.release(bid)
            else:
                held.settle(bid, int(tokens * share) if end == "s" else tokens, 0)

        results = await asyncio.gather(*(call(*cost) for cost in costs), return_exceptions=True)
        assert all(r is None or isinstance(r, BudgetError) for r in results)
        assert held.tokens == used <= limit

    asyncio.run(main())
