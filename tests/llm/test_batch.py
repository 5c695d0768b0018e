"""Asked in batches, at both providers: what comes back, what is asked again, what is told, what it costs."""

from __future__ import annotations

import asyncio
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.fakes.batch import BatchServer, batch_server
from tests.llm.conftest import user

from gristmill.cli.picture import line_words
from gristmill.core.ask import Answer, Model
from gristmill.core.errors import BudgetError, ProviderError
from gristmill.core.store import Store, open_store
from gristmill.llm.batch import anthropic as batch_anthropic
from gristmill.llm.batch import batcher as batch
from gristmill.llm.batch import course as batch_course
from gristmill.llm.batch import openai as batch_openai
from gristmill.llm.batch.notes import Batch
from gristmill.llm.budget import Budget, Limits
from gristmill.llm.client import Client
from gristmill.llm.spec import AnthropicSpec, OpenAISpec

Result = Answer | BaseException
MIB = 1 << 20


@pytest.fixture(scope="module")
def openai() -> Iterator[BatchServer]:
    with batch_server("openai") as served:
        yield served


@pytest.fixture(scope="module")
def anthropic() -> Iterator[BatchServer]:
    with batch_server("anthropic") as served:
        yield served


@pytest.fixture(params=["openai", "anthropic"])
def server(request: pytest.FixtureRequest) -> BatchServer:
    found: BatchServer = request.getfixturevalue(request.param)
    return found


class Desk:
    """A client over a store, and how to ask through it."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.clients: list[Client] = []

    def client(self, **options: Any) -> Client:
        self.clients.append(Client(self.store, workspace=self.folder, **{"run": "r", **options}))
        return self.clients[-1]

    def model(self, server: BatchServer, client: Client | None = None, **spec: Any) -> Model:
        entry = {"size": 10, "seconds": 0.1, "poll": 0.05} | spec.pop("batch", {})
        kind = OpenAISpec if server.provider == "openai" else AnthropicSpec
        made = kind(provider=server.provider, model="m", base_url=server.url, batch=entry, **spec)
        return (client or self.client()).model("writer", made, stage="qa")

    def notes(self, server: BatchServer) -> dict[str, Any]:
        return self.store.notes(f"batches:{server.url} m")


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(batch, "BEAT", 0.1)
    monkeypatch.setattr(batch, "GRACE", 0.6)
    monkeypatch.setattr(batch, "TICK", 0.02)
    monkeypatch.setattr(batch_course, "LONGEST_WAIT", 0.1)
    made = Desk(open_store(tmp_path / "store.db"), tmp_path)
    yield made
    for client in made.clients:
        await client.close()
    made.store.close()


async def ask(model: Model, count: int, *, start: int = 0) -> list[Result]:
    questions = range(start, start + count)
    return await asyncio.gather(
        *(model.chat(user(f"Question {n}."), max_tokens=20) for n in questions), return_exceptions=True
    )


def right(results: list[Result], *, start: int = 0) -> bool:
    return [getattr(r, "text", r) for r in results] == [f"You said: Question {start + n}." for n in range(len(results))]


def paid(server: BatchServer) -> list[int]:
    return sorted(server.stats()["billed"].values())


async def test_requests_go_in_full_batches_and_the_rest_after_a_while(server: BatchServer, desk: Desk) -> None:
    server.reset()
    client = desk.client()
    assert right(await ask(desk.model(server, client), 24))
    assert sorted(server.stats()["batches"].values()) == [4, 10, 10]
    assert paid(server) == [1] * 24
    assert desk.store.spent("r").calls == 24 and client.counters["qa"]["calls"] == 24
    await asyncio.sleep(0.2)
    assert not desk.notes(server)


async def test_what_is_answered_is_not_asked_again(openai: BatchServer, desk: Desk) -> None:
    openai.reset()
    model = desk.model(openai)
    await ask(model, 5)
    await ask(model, 7)
    assert sorted(openai.stats()["batches"].values()) == [2, 5]


@pytest.mark.parametrize(
    "faults",
    [
        {"p429": 0.3, "p500": 0.1}, {"flaky": 0.5}, {"expiring": 1}, {"breaks": 1, "duplicates": 0.5},
        {"lost_replies": 1, "list_lag_s": 0.3},
    ],
    ids=["refused calls", "lines that fail once", "expired", "torn and doubled results", "a lost reply"],
)  # fmt: skip
async def test_whatever_passes_is_overcome_and_paid_once(
    server: BatchServer, desk: Desk, faults: dict[str, Any]
) -> None:
    server.reset(**faults)
    assert right(await ask(desk.model(server), 12))
    assert paid(server) == [1] * 12
    assert desk.store.spent("r").calls == 12


async def test_of_an_expired_batch_only_what_is_missing_is_handed_in_again(server: BatchServer, desk: Desk) -> None:
    server.reset(expiring=1, expired=0.3)
    assert right(await ask(desk.model(server, batch={"seconds": 0.5}), 10))
    assert list(server.stats()["batches"].values()) == [10, 3]


async def test_of_a_cancelled_batch_what_was_done_is_kept(server: BatchServer, desk: Desk) -> None:
    server.reset(seconds=30, expired=0.4)
    asking = asyncio.create_task(ask(desk.model(server, batch={"seconds": 0.5}), 10))
    while not (made := server.stats()["batches"]):
        await asyncio.sleep(0.05)
    server.tune(seconds=0.2)
    server.cancel(*made)
    assert right(await asking)
    assert list(server.stats()["batches"].values()) == [10, 4]
    assert paid(server) == [1] * 10


async def test_a_bad_request_is_its_rows_alone(server: BatchServer, desk: Desk) -> None:
    server.reset(refuse="Question 3.")
    results = await ask(desk.model(server), 6)
    error = results.pop(3)
    assert isinstance(error, ProviderError) and not error.transient
    assert "too long" in error.message or "maximum context" in error.message
    assert all(isinstance(r, Answer) for r in results)
    assert list(server.stats()["batches"].values()) == [6]


async def test_what_is_withheld_is_paid_and_not_asked_again(server: BatchServer, desk: Desk) -> None:
    server.reset(withhold="Question 3.")
    results = await ask(desk.model(server), 4)
    assert isinstance(results[3], ProviderError) and not results[3].transient
    assert desk.store.spent("r").calls == 4 and desk.store.spent("r").unanswered == 1
    assert list(server.stats()["batches"].values()) == [4]


async def test_lines_that_the_results_lack_are_charged_and_asked_again(server: BatchServer, desk: Desk) -> None:
    server.reset(missing=0.5)
    assert right(await ask(desk.model(server), 12))
    lost = sum(paid(server)) - 12
    assert lost > 0
    assert desk.store.spent("r").unanswered == lost


async def test_result_lines_that_nobody_can_read_spoil_no_other(server: BatchServer, desk: Desk) -> None:
    ruined = ["name", "status", "answer", "[1]", '{"cus']
    server.reset(ruined=ruined)
    assert right(await ask(desk.model(server), 8))
    assert list(server.stats()["batches"].values()) == [8, 5]
    assert desk.store.spent("r").unanswered == len(ruined)


async def test_a_line_that_always_fails_is_given_up(openai: BatchServer, desk: Desk) -> None:
    openai.reset(expiring=99, expired=1.0)
    (error,) = await ask(desk.model(openai, attempts=2), 1)
    assert isinstance(error, ProviderError) and error.transient
    assert len(openai.stats()["batches"]) == 2


async def test_a_bad_line_fails_no_other(openai: BatchServer, desk: Desk) -> None:
    openai.reset(failing=1, fail="invalid_request", bad_line=3)
    results = await ask(desk.model(openai), 6)
    assert [n for n, r in enumerate(results) if isinstance(r, ProviderError)] == [2]
    assert list(openai.stats()["batches"].values()) == [6, 5]
    assert paid(openai) == [1] * 5


async def test_a_batch_turned_down_as_a_whole_says_why(openai: BatchServer, desk: Desk) -> None:
    openai.reset(failing=1, fail="mismatched_url")
    results = await ask(desk.model(openai), 3)
    assert all(isinstance(r, ProviderError) and "mismatched_url" in r.message for r in results)
    assert not desk.notes(openai)


async def test_a_model_nobody_knows_stops_the_run(openai: BatchServer, desk: Desk) -> None:
    openai.reset(failing=1, fail="model_not_found")
    assert [type(r).__name__ for r in await ask(desk.model(openai), 1)] == ["Unreachable"]


async def test_too_much_for_the_account_goes_in_smaller_batches(openai: BatchServer, desk: Desk) -> None:
    openai.reset(most=6)
    assert right(await ask(desk.model(openai), 10))
    sizes = list(openai.stats()["batches"].values())
    assert sizes[0] == 10 and 5 in sizes
    assert paid(openai) == [1] * 10


async def test_a_wrong_key_is_told_at_once(server: BatchServer, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "not-the-one")
    server.reset(api_key="the-one")
    results = await ask(desk.model(server, api_key="env:A_KEY"), 3)
    assert {type(r).__name__ for r in results} == {"Unreachable"}
    monkeypatch.setenv("A_KEY", "the-one")
    model = desk.model(server, api_key="env:A_KEY")
    assert right(await ask(model, 3))
    server.tune(api_key="the-next")  # replaced meanwhile
    monkeypatch.setenv("A_KEY", "the-next")
    assert right(await ask(model, 2, start=3), start=3)


async def test_a_key_that_is_refused_while_a_batch_is_under_way_pays_for_nothing_twice(
    openai: BatchServer, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "the-one")
    openai.reset(api_key="the-one", seconds=0.8)
    asking = asyncio.create_task(ask(desk.model(openai, api_key="env:A_KEY"), 3))
    while not openai.stats()["calls"].get("retrieve"):
        await asyncio.sleep(0.05)
    openai.tune(api_key="another")
    assert {type(r).__name__ for r in await asking} == {"Unreachable"}
    monkeypatch.setenv("A_KEY", "another")
    assert right(await ask(desk.model(openai, api_key="env:A_KEY"), 3))
    assert paid(openai) == [1] * 3 and len(openai.stats()["batches"]) == 1


@pytest.mark.parametrize("status", [pytest.param(403, marks=pytest.mark.slow), 405, 500])
async def test_a_batch_that_was_perhaps_taken_and_cannot_be_looked_for_is_not_paid_twice(
    server: BatchServer, desk: Desk, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(batch_course, "PATIENCE", 0.2)
    server.reset(lost_replies=1, list_status=status)
    for _ in range(2):
        results = await ask(desk.model(server, attempts=1), 3)
        hints = [r.hint for r in results if isinstance(r, ProviderError)]
        assert len(hints) == 3 and (status == 500 or all("remove `batch`" in hint for hint in hints))
        assert len(desk.notes(server)) == 1
        await desk.clients[-1].close()
    server.tune(list_status=0)
    assert right(await ask(desk.model(server), 3))
    assert paid(server) == [1] * 3 and len(server.stats()["batches"]) == 1
    assert desk.store.spent("r").calls == 3 and desk.store.spent("r").unanswered == 0


LISTED = {"id": "b-1", "created_at": "2026-01-01T00:00:00Z", "processing_status": "in_progress"}


@pytest.mark.parametrize(
    ("made", "theirs", "ours"),
    [
        (batch_openai.OpenAIDesk, [{"id": "b-1"}], {"id": "b-2", "metadata": {"gristmill": "tag"}}),
        (
            batch_anthropic.AnthropicDesk,
            [LISTED, {"id": "b-1", "request_counts": {"processing": 3}}],
            {**LISTED, "id": "b-2", "processing_status": "ended", "request_counts": {"succeeded": 3}},
        ),
    ],
)
async def test_a_listed_batch_that_tells_too_little_is_passed_over(
    made: Any, theirs: list[dict[str, Any]], ours: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = [{"data": theirs, "has_more": True}, {"data": [ours, *theirs], "has_more": False}]

    async def exchange(*_: object) -> dict[str, Any]:
        return pages.pop(0)

    async def tag(*_: object) -> str:
        return "tag"

    monkeypatch.setattr(sys.modules[made.__module__], "exchange", exchange)
    monkeypatch.setattr(made, "_tag", tag, raising=False)
    looked_for = Batch("tag", "/chat/completions", {}, 3, "me")
    assert await made(SimpleNamespace(wire=None)).find(looked_for, known=set()) == "b-2"


async def test_a_batch_that_the_provider_has_forgotten_is_handed_in_again(server: BatchServer, desk: Desk) -> None:
    server.reset(seconds=30)
    first = desk.client()
    asking = asyncio.create_task(ask(desk.model(server, first), 3))
    while not server.stats()["calls"].get("retrieve"):
        await asyncio.sleep(0.05)
    server.reset(seconds=0.2)
    assert right(await asking)


async def test_answers_nobody_waited_for_are_fetched_when_somebody_asks(openai: BatchServer, desk: Desk) -> None:
    openai.reset(seconds=0.6)
    first = desk.client()
    asking = asyncio.create_task(ask(desk.model(openai, first), 8))
    while not openai.stats()["calls"].get("retrieve"):
        await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await first.close()
    later = desk.model(openai)
    assert right(await ask(later, 3))  # a recipe that has changed asks for some of them
    assert len(next(iter(desk.notes(openai).values()))["keys"]) >= 5
    assert right(await ask(later, 8))
    assert list(openai.stats()["batches"].values()) == [8]
    assert paid(openai) == [1] * 8 and desk.store.spent("r").calls == 8


async def test_a_client_may_ask_again_after_it_was_closed(openai: BatchServer, desk: Desk) -> None:
    openai.reset()
    client = desk.client()
    model = desk.model(openai, client)
    assert right(await ask(model, 2))
    await client.close()
    assert right(await ask(model, 4))


@pytest.mark.slow
async def test_closing_forgets_what_failed(openai: BatchServer, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    openai.reset()
    client = desk.client()
    monkeypatch.setenv("A_KEY", "the-one")
    model = desk.model(openai, client, api_key="env:A_KEY", batch={"seconds": 0.2})
    asking = asyncio.create_task(ask(model, 2))
    await asyncio.sleep(0.1)
    monkeypatch.delenv("A_KEY")
    assert {type(r).__name__ for r in await asking} == {"ConfigError"}
    await client.close()
    monkeypatch.setenv("A_KEY", "the-one")
    assert right(await ask(model, 2))


async def test_a_line_says_what_is_under_way(openai: BatchServer, desk: Desk) -> None:
    openai.reset(seconds=0.6)
    client = desk.client()
    asking = asyncio.create_task(ask(desk.model(openai, client), 13))
    while not client.lines() or (line := client.lines()[0]).batches != 2:
        await asyncio.sleep(0.02)
    assert (line.in_flight, line.waiting, line.limit) == (13, 0, 20)
    assert line_words(asdict(line)) == "writer: 13 under way in 2 batches"
    assert right(await asking)


async def test_a_hand_in_holds_no_second_copy(server: BatchServer, desk: Desk) -> None:
    server.reset(seconds=30)
    model = desk.model(server, client := desk.client(), batch={"size": 20, "seconds": 0.3})
    tracemalloc.start()
    asking = asyncio.gather(*(model.chat(user(f"{n}" + "x" * MIB), max_tokens=20) for n in range(16)))
    while client.lines()[0].waiting < 16:
        await asyncio.sleep(0.02)
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    while not server.stats()["batches"]:
        await asyncio.sleep(0.02)
    most = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    asking.cancel()
    await asyncio.wait([asking])
    assert most < 8 * MIB


@pytest.mark.slow
async def test_who_gives_up_before_the_hand_in_is_left_out(openai: BatchServer, desk: Desk) -> None:
    openai.reset()
    model = desk.model(openai, batch={"seconds": 0.4})
    asking = [asyncio.create_task(ask(model, 1, start=n)) for n in range(3)]
    await asyncio.sleep(0.1)
    asking[1].cancel()
    results = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)
    assert list(openai.stats()["batches"].values()) == [2]


async def test_chats_and_embeddings_never_share_a_batch(openai: BatchServer, desk: Desk) -> None:
    openai.reset()
    model = desk.model(openai)
    results, vectors = await asyncio.gather(ask(model, 2), model.embed(["one", "three"]))
    assert right(results) and [v[0] for v in vectors] == [3.0, 5.0]
    assert list(openai.stats()["batches"].values()) == [2, 1] or list(openai.stats()["batches"].values()) == [1, 2]


async def test_what_no_batch_can_hold_is_that_rows_error(anthropic: BatchServer, desk: Desk) -> None:
    anthropic.reset()
    model = desk.model(anthropic)
    with pytest.raises(ProviderError, match="has no embeddings"):
        await model.embed(["one"])
    assert not anthropic.stats()["calls"]


async def test_a_batch_costs_its_share_of_the_price(openai: BatchServer, desk: Desk) -> None:
    openai.reset()
    model = desk.model(openai, price={"input": 2.0, "output": 10.0, "batch": 0.5})
    await ask(model, 3)
    spent = desk.store.spent("r")
    assert spent.nano_usd == (spent.tokens_in * 2000 + spent.tokens_out * 10_000) // 2


async def test_a_budget_bounds_what_is_handed_in(openai: BatchServer, desk: Desk) -> None:
    openai.reset()
    client = desk.client(budget=Budget(Limits(calls=5), store=desk.store, run="r"))
    results = await ask(desk.model(openai, client), 9)
    assert sum(isinstance(r, Answer) for r in results) == 5
    assert sum(isinstance(r, BudgetError) for r in results) == 4
    assert sum(openai.stats()["batches"].values()) == 5


async def test_nobody_at_the_address(desk: Desk) -> None:
    nobody = BatchServer("openai", "http://127.0.0.1:9/v1")
    results = await ask(desk.model(nobody, attempts=1), 2)
    assert {type(r).__name__ for r in results} == {"Unreachable"}
    assert not desk.notes(nobody)


async def test_a_large_batch(anthropic: BatchServer, desk: Desk) -> None:
    anthropic.reset()
    assert right(await ask(desk.model(anthropic, batch={"size": 2000, "seconds": 0.3}), 2000))
    assert list(anthropic.stats()["batches"].values()) == [2000]
