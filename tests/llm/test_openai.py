"""What an OpenAI-compatible server is sent, and that faults cost attempts and no answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.fakes.fixtures import FakeServer
from tests.llm.conftest import user
from tests.llm.lines import openai, question

from gristmill.core.ask import Model
from gristmill.core.errors import ProviderError
from gristmill.llm.client import Client
from gristmill.llm.provider import Request


async def test_every_call_of_a_burst_is_answered_through_faults(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.fresh(latency_ms=2, p429=0.1, p500=0.05, pbadjson=0.05, pdrop=0.05, retry_after=0.05, wait_form="ms")
    client = make_client()
    asked = model(client=client, concurrency=32)
    answers = await asyncio.gather(*(asked.chat(user(f"Question {n} on tides"), max_tokens=30) for n in range(200)))
    stats = fake.stats()
    assert all(a.text for a in answers) and len({a.key for a in answers}) == 200
    assert client.counters["qa"]["calls"] == 200
    assert stats["calls"] > 220 and stats["max_in_flight"] <= 32


@pytest.mark.parametrize("fault", ["p500", "pbadjson", "pdrop"])
async def test_what_passes_is_tried_so_often_and_no_more(
    fake: FakeServer, model: Callable[..., Model], fault: str
) -> None:
    fake.fresh(**{fault: 1.0})
    with pytest.raises(ProviderError) as caught:
        await model(attempts=2).chat(user("Hello"), max_tokens=5)
    assert caught.value.transient
    assert fake.stats()["calls"] == 2


async def test_a_chat_is_what_was_asked(fake: FakeServer) -> None:
    async with openai(fake.url, headers={"X-Team": "mill"}) as provider:
        path, body = provider.body(question(temperature=0.5, stop=("\n",), seed=3))
        assert provider.wire.headers() == {"Content-Type": "application/json", "X-Team": "mill"}
    assert path == "/chat/completions" and body == {
        "model": "m",
        "temperature": 0.5,
        "stop": ("\n",),
        "seed": 3,
        "max_tokens": 50,
        "messages": question().messages,
    }


@pytest.mark.parametrize("form", ["content", "lists"])
async def test_completions_carry_log_probabilities_in_either_form(fake: FakeServer, form: str) -> None:
    fake.fresh(logprobs=form)
    async with openai(fake.url) as provider:
        by_text = await provider.send(Request(prompt="the ferry leaves at noon", max_tokens=9))
        by_ids = await provider.send(Request(prompt=(5, 6, 7), max_tokens=9))
    assert len(by_text.logprobs) == len(by_text.text.split()) and max(by_text.logprobs) <= 0
    assert len(by_text.tokens) == (len(by_text.logprobs) if form == "content" else 0)
    assert by_ids.text and by_ids.text != by_text.text


async def test_embeddings_come_in_order(fake: FakeServer) -> None:
    async with openai(fake.url) as provider:
        reply = await provider.send(Request(texts=("the ferry", "a lighthouse", "the ferry")))
    one, two, same = reply.vectors
    assert one == same != two and reply.usage.input > 0 and reply.usage.output == 0


async def test_the_answers_of_embeddings_are_kept(fake: FakeServer, model: Callable[..., Model]) -> None:
    asked = model()
    first = await asked.embed(["the ferry", "a lighthouse"])
    assert await asked.embed(["the ferry", "a lighthouse"]) == first and await asked.embed([]) == []
    assert fake.stats()["calls"] == 1


async def test_a_grammar_needs_a_local_model(fake: FakeServer) -> None:
    async with openai(fake.url) as provider:
        with pytest.raises(ProviderError, match="grammar") as caught:
            await provider.send(question(grammar='root ::= "a"'))
    assert not caught.value.transient
    assert fake.stats()["calls"] == 0


@pytest.mark.parametrize(("finish", "words"), [("content_filter", "withheld"), ("surprise", "unknown way: 'surprise'")])
async def test_a_withheld_answer_is_no_answer(fake: FakeServer, finish: str, words: str) -> None:
    fake.fresh(finish=finish)
    async with openai(fake.url) as provider:
        with pytest.raises(ProviderError, match=words) as caught:
            await provider.send(question())
    assert not caught.value.transient


@pytest.mark.parametrize("finish", ["error", "abort"])
async def test_an_answer_broken_off_by_the_server_is_asked_again(fake: FakeServer, finish: str) -> None:
    fake.fresh(finish=finish)
    async with openai(fake.url) as provider:
        with pytest.raises(ProviderError, match="broke off") as caught:
            await provider.send(question())
    assert caught.value.transient
