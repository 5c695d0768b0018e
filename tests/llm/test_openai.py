"""What a server's refusals, hangs and half answers become. Served by the fake over real HTTP."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
from aiohttp import web
from tests.fakes.fixtures import FakeServer
from tests.llm.conftest import user

from gristmill.core.ask import Model
from gristmill.core.errors import ProviderError
from gristmill.llm.client import Client


async def test_every_call_of_a_burst_is_answered_through_faults(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(latency_ms=2, p429=0.1, p500=0.1, pbadjson=0.05)
    client = make_client()
    asked = model(client=client, concurrency=32)
    answers = await asyncio.gather(*(asked.chat(user(f"Question {n} on tides"), max_tokens=30) for n in range(200)))
    stats = fake.stats()
    assert all(a.text for a in answers)
    assert client.counters["qa"]["calls"] == 200
    assert client.counters["qa"]["retries"] == stats["calls"] - 200 > 10
    assert stats["max_in_flight"] <= 32


async def test_a_hang_costs_one_timeout(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(phang=1.0)
    with pytest.raises(ProviderError, match=r"did not answer within 0\.2 s") as caught:
        await model(timeout=0.2, attempts=2).chat(user("Hello"), max_tokens=5)
    assert caught.value.transient
    assert fake.stats()["calls"] == 2


@pytest.mark.parametrize("fault", [{"p500": 1.0}, {"pbadjson": 1.0}, {"p429": 1.0}])
async def test_what_passes_is_tried_so_often_and_no_more(
    fake: FakeServer, model: Callable[..., Model], fault: dict[str, float]
) -> None:
    fake.reset(**fault)
    with pytest.raises(ProviderError) as caught:
        await model(attempts=3).chat(user("Hello"), max_tokens=5)
    assert caught.value.transient
    assert fake.stats()["calls"] == 3


async def test_retry_after_holds_for_its_request_alone(fake: FakeServer, model: Callable[..., Model]) -> None:
    fake.reset(p429=0.5, retry_after=0.4)
    asked = model(concurrency=1, attempts=20)
    took: list[float] = []

    async def one(n: int) -> None:
        began = time.monotonic()
        await asked.chat(user(f"Question {n}"), max_tokens=5)
        took.append(time.monotonic() - began)

    await asyncio.gather(*(one(n) for n in range(20)))
    assert min(took) < 0.4  # who was not refused does not wait for who was
    assert max(took) >= 0.4


async def test_a_provider_closed_for_the_day_is_not_waited_for(fake: FakeServer, model: Callable[..., Model]) -> None:
    fake.reset(p429=1.0, retry_after=86400)
    with pytest.raises(ProviderError, match="429") as caught:
        await model().chat(user("Hello"), max_tokens=5)
    assert caught.value.transient
    assert fake.stats()["calls"] == 1


async def test_a_refusal_is_final_and_in_the_providers_words(fake: FakeServer, model: Callable[..., Model]) -> None:
    fake.reset(refuse="tides")
    with pytest.raises(ProviderError, match="maximum context length is 2048") as caught:
        await model().chat(user("About tides"), max_tokens=5)
    assert not caught.value.transient and caught.value.status == 400
    assert fake.stats()["calls"] == 1


@pytest.mark.parametrize(("finish", "words"), [("content_filter", "withheld"), ("surprise", "unknown way: 'surprise'")])
async def test_a_withheld_answer_is_no_answer(
    fake: FakeServer, model: Callable[..., Model], finish: str, words: str
) -> None:
    fake.reset(finish=finish)
    with pytest.raises(ProviderError, match=words) as caught:
        await model().chat(user("Hello"), max_tokens=5)
    assert not caught.value.transient


async def test_the_key_is_read_again_when_it_is_refused(
    fake: FakeServer, model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.reset(api_key="first")
    monkeypatch.setenv("FAKE_KEY", "first")
    asked = model(api_key="env:FAKE_KEY")
    await asked.chat(user("one"), max_tokens=5)
    fake.reset(api_key="second")
    monkeypatch.setenv("FAKE_KEY", "second")
    await asked.chat(user("two"), max_tokens=5)
    await asked.chat(user("three"), max_tokens=5)
    assert fake.stats()["statuses"] == {"401": 1, "200": 2}
    fake.reset(api_key="third")
    with pytest.raises(ProviderError, match="Incorrect API key") as caught:
        await asked.chat(user("four"), max_tokens=5)
    assert caught.value.transient and "second" not in str(caught.value)  # the next run asks again, with a better key
    assert fake.stats()["calls"] == 1  # the key had not changed: asking again could not help


async def test_no_server_is_said_so(model: Callable[..., Model]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(ProviderError, match="cannot reach") as caught:
        await model(base_url=url, attempts=1).chat(user("Hello"), max_tokens=5)
    assert caught.value.transient


async def test_a_grammar_needs_a_local_model(fake: FakeServer, model: Callable[..., Model]) -> None:
    with pytest.raises(ProviderError, match="grammar") as caught:
        await model().chat(user("Hello"), max_tokens=5, grammar='root ::= "a"')
    assert not caught.value.transient
    assert fake.stats()["calls"] == 0


async def test_completions_carry_tokens_and_log_probabilities(model: Callable[..., Model]) -> None:
    by_text = await model().complete("the ferry leaves at noon", max_tokens=9)
    by_ids = await model().complete([5, 6, 7], max_tokens=9)
    assert len(by_text.tokens) == len(by_text.logprobs) == len(by_text.text.split())
    assert by_ids.text and by_ids.key != by_text.key


async def test_embeddings_come_in_order(fake: FakeServer, model: Callable[..., Model]) -> None:
    asked = model()
    one, two, same = await asked.embed(["the ferry", "a lighthouse", "the ferry"])
    assert one == same != two
    await asked.embed(["the ferry", "a lighthouse", "the ferry"])
    assert await asked.embed([]) == []
    assert fake.stats()["calls"] == 1


@pytest.mark.parametrize(
    ("body", "text", "thoughts"),
    [
        ({"content": "Yes.", "reasoning_content": "Hm."}, "Yes.", "Hm."),
        ({"content": "<think>\nHm.\n</think>\n\nYes."}, "Yes.", "Hm."),
        ({"content": "I <think> so"}, "I <think> so", None),
        ({"content": None, "reasoning": "Hm."}, "", "Hm."),
    ],
)
async def test_thoughts_are_kept_apart(
    model: Callable[..., Model], body: dict[str, str], text: str, thoughts: str | None
) -> None:
    async def answer(_: web.Request) -> web.Response:
        choice = {"message": {"role": "assistant", **body}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})

    async with serving({"/v1/chat/completions": answer}) as url:
        got = await model(base_url=url).chat(user("Well?"), max_tokens=5)
    assert got.text == text and got.raw.get("reasoning") == thoughts


@pytest.mark.parametrize("reply", ["[]", '{"choices": []}', '{"choices": [{"finish_reason": "stop"}]}', '"busy"'])
async def test_an_answer_of_another_shape_is_no_answer(model: Callable[..., Model], reply: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=reply, content_type="application/json")

    async with serving({"/v1/chat/completions": answer}) as url:
        with pytest.raises(ProviderError, match="answer") as caught:
            await model(base_url=url, attempts=1).chat(user("Well?"), max_tokens=5)
    assert caught.value.transient


async def test_an_endless_answer_is_cut_and_charged(
    make_client: Callable[..., Client], model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gristmill.llm.openai.LARGEST_REPLY", 1 << 20)
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 64 << 20:  # ends earlier: the client hangs up
            await response.write(b" " * 65536)
            sent += 65536
        return response

    client = make_client()
    async with serving({"/v1/chat/completions": endless}) as url:
        with pytest.raises(ProviderError, match="more than 1 MiB") as caught:
            await model(client=client, base_url=url).chat(user("Well?"), max_tokens=5)
    assert not caught.value.transient and sent < 32 << 20
    assert client.budget.calls == 1 and client.budget.tokens > 5


async def test_a_redirect_is_not_followed_with_the_key(
    model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_KEY", "k")

    async def away(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/elsewhere"})

    async with serving({"/v1/chat/completions": away}) as url:
        with pytest.raises(ProviderError, match="307") as caught:
            await model(base_url=url, api_key="env:FAKE_KEY").chat(user("Well?"), max_tokens=5)
    assert not caught.value.transient


class serving:
    """A server with these handlers, in this process."""

    def __init__(self, handlers: dict[str, Callable[[web.Request], object]]) -> None:
        app = web.Application()
        for path, handler in handlers.items():
            app.router.add_post(path, handler)  # type: ignore[arg-type]
        self.runner = web.AppRunner(app)

    async def __aenter__(self) -> str:
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self.runner.addresses[0][1]}/v1"

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()
