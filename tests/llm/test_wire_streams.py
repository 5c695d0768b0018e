"""A streamed answer is the unstreamed one, however it is cut into pieces."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.fixtures import FakeServer
from tests.llm.lines import KINDS, PROVIDERS, openai, question, serving

from gristmill.core.errors import ProviderError
from gristmill.llm.provider import Refused, Request, Unanswered
from gristmill.llm.wire.sse import EventParser

both = pytest.mark.parametrize("kind", PROVIDERS)

line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n"), max_size=20)


@given(
    events=st.lists(st.lists(texts, min_size=1, max_size=3), max_size=6),
    end=line_ends,
    noise=st.sampled_from([b"", b": comment", b"event: delta", b"id: 7", b"retry: 10", b"data-like: no"]),
    mark=st.booleans(),
    space=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=12),
)
def test_events_are_the_same_wherever_their_bytes_are_cut(
    events: list[list[str]], end: bytes, noise: bytes, mark: bool, space: bool, cuts: list[int]
) -> None:
    if not space:
        events = [[line.removeprefix(" ") for line in lines] for lines in events]
    field = b"data: " if space else b"data:"
    whole = b"\xef\xbb\xbf" if mark else b""
    for lines in events:
        whole += noise + end if noise else b""
        whole += b"".join(field + line.encode() + end for line in lines) + end
    parser, got = EventParser(), []
    for start, stop in pairwise([0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]):
        got += parser.feed(whole[start:stop])
    assert got + parser.rest() == ["\n".join(lines).encode() for lines in events]


def test_the_last_event_needs_no_empty_line_and_llamas_errors_are_events() -> None:
    parser = EventParser()
    assert parser.feed(b'error: {"code": 400}\n\ndata: [DONE]') == [b'{"error":{"code": 400}}']
    assert parser.rest() == [b"[DONE]"] and parser.rest() == []


REQUESTS = [
    question(),
    question(temperature=0.7, seed=3),
    question(schema={"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}, schema_name="A"),
]


@both
@pytest.mark.parametrize("request_", REQUESTS, ids=["plain", "drawn", "structured"])
@pytest.mark.parametrize(
    "options", [{}, {"think": "reasoning_content", "cached": 0.5}, {"plength": 1.0}, {"no_usage": True}]
)
async def test_a_stream_ends_in_the_same_reply(
    one_server: FakeServer, kind: str, request_: Request, options: dict[str, Any]
) -> None:
    """The fake's answers depend on the whole body: what the stream says is compared with what was sent."""
    one_server.fresh(**options)
    async with KINDS[kind](one_server.url, stream=True) as provider:  # type: ignore[operator]
        streamed = await provider.send(request_)
        path, body = provider.body(request_)
        answer, _ = await provider.wire.post(path, body | {"stream": 0})
        again = provider.read(request_, answer)
    assert (streamed.finish, streamed.usage.known) == (again.finish, again.usage.known)
    assert bool(streamed.reasoning) is bool(options.get("think")) and streamed.reasoning == again.reasoning
    assert streamed.usage.cached == again.usage.cached and streamed.usage.input == again.usage.input
    if request_.schema is None:
        assert sorted(streamed.text.lower()) and streamed.text.endswith(".") is (streamed.finish == "stop")
    elif streamed.finish == "stop":
        assert json.loads(streamed.text).keys() == {"a"}


async def test_a_streamed_continuation_has_its_log_probabilities(one_server: FakeServer) -> None:
    for form in ("content", "lists"):
        one_server.fresh(logprobs=form)
        async with openai(one_server.url, stream=True) as provider:
            reply = await provider.send(Request(prompt="the ferry leaves at noon", max_tokens=9))
        assert len(reply.logprobs) == len(reply.text.split()) > 0
        assert bool(reply.tokens) is (form == "content")


@both
@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9])
async def test_a_stream_that_breaks_off_is_no_answer(one_server: FakeServer, kind: str, cut: float) -> None:
    one_server.fresh(cut_stream=cut)
    async with KINDS[kind](one_server.url, stream=True) as provider:  # type: ignore[operator]
        with pytest.raises(Unanswered) as caught:
            await provider.send(question())
    assert caught.value.charged


async def test_an_error_in_a_stream_is_what_it_says(one_server: FakeServer) -> None:
    one_server.fresh(stream_error=True)
    async with KINDS["anthropic"](one_server.url, stream=True) as provider:  # type: ignore[operator]
        with pytest.raises(Refused, match="Overloaded"):
            await provider.send(question())


@both
async def test_a_stream_refused_is_refused(one_server: FakeServer, kind: str) -> None:
    one_server.fresh(p429=1.0, retry_after=2)
    async with KINDS[kind](one_server.url, stream=True) as provider:  # type: ignore[operator]
        with pytest.raises(Refused) as caught:
            await provider.send(question())
    assert caught.value.retry_after == 2


async def test_a_server_without_stream_options_streams_all_the_same(one_server: FakeServer) -> None:
    one_server.fresh(refuses="stream_options")
    async with openai(one_server.url, stream=True) as provider:
        reply = await provider.send(question())
    assert reply.text and not reply.usage.known


@pytest.mark.parametrize("event", ["{", "[1]", '{"error": {"message": "boom", "code": 500}}'])
async def test_a_stream_of_something_else_is_no_answer(event: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=f"data: {event}\n\n", content_type="text/event-stream")

    async with serving(answer) as url, openai(url, stream=True) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.send(question())
    assert caught.value.transient
