"""Closed is closed: every part is let go of, whatever the others say, and nothing goes on afterwards."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable

import pytest
from tests.fakes.fixtures import FakeServer
from tests.llm.conftest import user

from gristmill.core.ask import Model
from gristmill.core.errors import Cancelled, StoreError
from gristmill.core.store import Hold
from gristmill.llm.budget import Budget, Limits
from gristmill.llm.client import Client
from gristmill.llm.providers.openai import OpenAIProvider


async def test_a_charge_that_cannot_be_written_keeps_no_connection_open_and_stays_held(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.fresh(latency_ms=5000)
    client = make_client()
    asked = asyncio.create_task(model(client=client).chat(user("Hello"), max_tokens=20))
    while not fake.stats()["calls"]:
        await asyncio.sleep(0.01)
    connection = sqlite3.connect(client.workspace / "store.db")
    connection.execute("DROP TABLE ledger")
    connection.close()
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await client.close()
    assert client.store.notes(f"limits:{fake.url.split('/')[2]} m").keys() <= {"learned"}
    held = client.store.held("r")
    assert held.calls == 1 and held.tokens > 20


async def test_each_line_is_closed_and_the_budget_whoever_fails(
    fake: FakeServer,
    make_client: Callable[..., Client],
    model: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[str] = []
    really = OpenAIProvider.close

    async def close(provider: OpenAIProvider) -> None:
        await really(provider)
        closed.append(provider.spec.model)
        if provider.spec.model == "m":
            raise StoreError("the first")

    store = make_client().store
    client = make_client(budget=Budget(Limits(usd=1), store=store, run="r"))
    for name in ("m", "m2"):
        await model(client=client, model=name).chat(user("Hello"), max_tokens=5)
    assert store.held("r") != Hold()
    monkeypatch.setattr(OpenAIProvider, "close", close)
    with pytest.raises(StoreError, match="the first"):
        await client.close()
    monkeypatch.undo()
    assert sorted(closed) == ["m", "m2"] and store.held("r") == Hold()


async def test_who_waits_for_other_processes_when_it_is_closed_waits_no_longer(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    client = make_client()
    other = {"beat": 1, "wants": True, "seen": {}}
    await client.store.put_note(f"limits:{fake.url.split('/')[2]} m", "elsewhere 1 other", other)
    asking = [asyncio.create_task(model(client=client).chat(user(f"Hello {n}"), max_tokens=5)) for n in range(2)]
    await asyncio.sleep(0.1)
    asking[0].cancel()
    await client.close()
    ends = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError, Cancelled]
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert fake.stats()["calls"] == 0
