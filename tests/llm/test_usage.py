"""What a server counts is charged where it can be true; else nobody knows, and what was reserved is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from aiohttp import web
from tests.llm.conftest import user
from tests.llm.lines import Handler, anthropic, openai, question, serving

from gristmill.core.ask import Model, Usage
from gristmill.llm.client import Client


def counting(usage: str) -> Handler:
    """A server that says this of what it used."""

    async def answer(_: web.Request) -> web.Response:
        choice = '{"message": {"content": "Yes."}, "finish_reason": "stop"}'
        return web.Response(text=f'{{"choices": [{choice}], "usage": {{{usage}}}}}', content_type="application/json")

    return answer


@pytest.mark.parametrize("count", ['"7"', "-1000000", "7.5", "true", "1e30", "9000000000000000000", "[7]", "null"])
@pytest.mark.parametrize("name", ["completion_tokens", "prompt_tokens"])
async def test_what_is_no_count_is_not_charged_as_one(
    make_client: Callable[..., Client], model: Callable[..., Model], name: str, count: str
) -> None:
    told = {"prompt_tokens": "5", "completion_tokens": "7", name: count}
    async with serving(counting(", ".join(f'"{key}": {value}' for key, value in told.items()))) as url:
        client = make_client()
        asked = model(client=client, base_url=url, price={"input": 0.5, "output": 2.0}, concurrency=2)
        for n in range(3):  # no slot is lost
            assert not (await asked.chat(user(f"Hello {n}"), max_tokens=20)).usage.known
        spent = client.store.spent("r")
        assert (spent.calls, spent.tokens_out, client.budget.tokens) == (3, 60, spent.tokens_in + 60)
        assert spent.nano_usd == spent.tokens_in * 500 + 60 * 2000
        assert client.lines()[0].in_flight == 0
        await client.close()


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ('"prompt_tokens_details": {"cached_tokens": 50}', Usage(5, 7, cached=5)),
        ('"prompt_tokens_details": {"cached_tokens": null}', Usage(5, 7)),
        ('"prompt_tokens_details": "none"', Usage(5, 7)),
        ('"prompt_tokens_details": {"cached_tokens": -3}', Usage(known=False)),
        ('"completion_tokens_details": {"reasoning_tokens": 50}', Usage(5, 7, reasoning=7)),
        ('"total_tokens": 20', Usage(5, 15)),
        ('"total_tokens": -20', Usage(5, 7)),
    ],
)
async def test_a_part_is_never_more_than_the_whole(told: str, usage: Usage) -> None:
    handler = counting(f'"prompt_tokens": 5, "completion_tokens": 7, {told}')
    async with serving(handler) as url, openai(url) as provider:
        assert (await provider.send(question())).usage == usage


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({}, Usage(9, 5)),
        ({"input_tokens": "9"}, Usage(known=False)),
        ({"output_tokens": -5}, Usage(known=False)),
        ({"cache_read_input_tokens": 1.5}, Usage(known=False)),
        ({"cache_creation_input_tokens": -10_000}, Usage(known=False)),
        ({"cache_read_input_tokens": None, "cache_creation_input_tokens": 4}, Usage(13, 5, written=4)),
        ({"output_tokens_details": {"thinking_tokens": 50}}, Usage(9, 5, reasoning=5)),
        ({"output_tokens_details": [1]}, Usage(9, 5)),
    ],
)
async def test_counts_of_messages_too(told: dict[str, Any], usage: Usage) -> None:
    body = {
        "content": [{"type": "text", "text": "Yes."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 9, "output_tokens": 5, **told},
    }

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async with serving(answer) as url, anthropic(url) as provider:
        assert (await provider.send(question())).usage == usage


@pytest.mark.parametrize(
    "choice",
    [
        '{"message": {"content": "Yes."}, "finish_reason": ["stop"]}',
        '{"message": {"content": [{"type": "text", "text": 7}]}, "finish_reason": "stop"}',
        '{"message": {"content": {"a": 1}}, "finish_reason": "stop"}',
        '{"message": ["Yes."], "finish_reason": "stop"}',
        '"Yes."',
    ],
)
async def test_a_misshapen_answer_is_asked_for_again(model: Callable[..., Model], choice: str) -> None:
    calls = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        good = '{"message": {"content": "Yes."}, "finish_reason": "stop"}'
        return web.Response(text=f'{{"choices": [{choice if calls == 1 else good}]}}', content_type="application/json")

    async with serving(answer) as url:
        assert (await model(base_url=url).chat(user("Hello"), max_tokens=5)).text == "Yes."
    assert calls == 2
