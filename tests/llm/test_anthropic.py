"""The Messages API: what it is sent, and what comes of its answers."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from aiohttp import web
from tests.fakes.fixtures import FakeServer
from tests.llm.lines import anthropic, question, serving
from tests.llm.test_openai_modes import SCHEMA, STRUCTURED, Notes, answered

from gristmill.core.errors import ProviderError
from gristmill.llm.provider import Request, Unanswered, Withheld
from gristmill.llm.providers.demand import fits


async def test_the_systems_words_stand_apart_and_stops_have_their_own_name(one_server: FakeServer) -> None:
    one_server.fresh()
    said = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "How deep is it?"})
    request = Request(messages=said, max_tokens=50, temperature=0.3, stop=("\n",), seed=7)
    async with anthropic(one_server.url) as provider:
        path, body = provider.body(request)
        reply = await provider.send(request)
    assert path == "/messages" and body == {
        "model": "m",
        "max_tokens": 50,
        "system": "Be brief.",
        "messages": (said[1],),
        "temperature": 0.3,
        "stop_sequences": ("\n",),
    }
    assert reply.text and reply.finish == "stop" and reply.usage.known


async def test_the_headers_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, str] = {}

    async def answer(request: web.Request) -> web.Response:
        seen.update(request.headers)
        return web.json_response(message([{"type": "text", "text": "Yes."}]))

    monkeypatch.setenv("FAKE_KEY", "canary-key")
    async with serving(answer) as url, anthropic(url, api_key="env:FAKE_KEY", headers={"X-Team": "mill"}) as provider:
        await provider.send(question())
    assert seen["x-api-key"] == "canary-key" and "Authorization" not in seen
    assert seen["anthropic-version"] == "2023-06-01" and seen["X-Team"] == "mill"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("options", "way", "refused"),
    [({}, "schema", 0), ({"json_modes": "tool"}, "tool", 1), ({"json_modes": ""}, "prompt", 2)],
)
async def test_json_by_format_by_tool_or_in_words(
    one_server: FakeServer, options: dict[str, Any], way: str, refused: int, stream: bool
) -> None:
    one_server.fresh(**options)
    notes = Notes()
    async with anthropic(one_server.url, notes=notes, stream=stream) as provider:
        for n in range(2):
            reply = await provider.send(question(f"How deep is pier {n}?", schema=SCHEMA, schema_name="Pair"))
            assert fits(reply.text, SCHEMA, by_keys=True) and reply.finish == "stop"
    statuses = one_server.stats()["statuses"]
    assert statuses.pop("200") == 2 and sum(statuses.values()) == refused
    assert [note["json"] for note in notes.kept.values()] == [way]


async def test_a_model_that_ignores_the_format_is_given_a_tool(one_server: FakeServer) -> None:
    one_server.fresh(ignores_json=True)
    async with anthropic(one_server.url) as provider:
        _, lost = await answered(provider, STRUCTURED)
        assert lost == 1 and "tool_choice" in provider.body(STRUCTURED)[1]


async def test_a_tools_input_that_was_cut_off_is_truncated(one_server: FakeServer) -> None:
    for stream in (False, True):
        one_server.fresh(json_modes="tool", plength=1.0)
        async with anthropic(one_server.url, stream=stream) as provider:
            assert (await provider.send(STRUCTURED)).finish == "length"


async def test_a_model_without_temperature_is_asked_without(one_server: FakeServer) -> None:
    one_server.fresh(refuses="temperature")
    async with anthropic(one_server.url) as provider:
        await provider.send(question())
        await provider.send(question("Another?"))
    assert one_server.stats()["statuses"] == {"400": 1, "200": 2}


def message(content: list[dict[str, Any]], stop: str | None = "end_turn", **more: Any) -> dict[str, Any]:
    usage = {"input_tokens": 9, "output_tokens": 5}
    return {"type": "message", "content": content, "stop_reason": stop, "usage": usage, **more}


TEXT = [{"type": "text", "text": "Yes."}]


@pytest.mark.parametrize(
    ("stop", "finish"),
    [("end_turn", "stop"), ("stop_sequence", "stop"), ("tool_use", "stop"), ("max_tokens", "length"),
     ("model_context_window_exceeded", "length")],
)  # fmt: skip
async def test_why_it_stopped(stop: str, finish: str) -> None:
    assert (await sent(message(TEXT, stop))).finish == finish


@pytest.mark.parametrize(("stop", "kind"), [("pause_turn", Unanswered), (None, Unanswered), ("odd", Withheld)])
async def test_why_it_is_no_answer(stop: str | None, kind: type[ProviderError]) -> None:
    with pytest.raises(kind) as caught:
        await sent(message(TEXT, stop))
    assert caught.value.usage == (await sent(message(TEXT))).usage  # type: ignore[attr-defined]


async def test_a_refusal_says_why(one_server: FakeServer) -> None:
    for stream in (False, True):
        one_server.fresh(deny="pier")
        async with anthropic(one_server.url, stream=stream) as provider:
            with pytest.raises(Withheld, match="This is not answered here") as caught:
                await provider.send(question())
        assert not caught.value.transient and caught.value.usage is not None


async def test_input_is_all_of_it_whatever_the_cache_did() -> None:
    usage = {
        "input_tokens": 9,
        "cache_read_input_tokens": 100,
        "cache_creation_input_tokens": 10,
        "output_tokens": 50,
        "output_tokens_details": {"thinking_tokens": 40},
    }
    got = (await sent(message(TEXT, usage=usage))).usage
    assert (got.input, got.cached, got.written, got.output, got.reasoning) == (119, 100, 10, 50, 40)
    assert not (await sent(message(TEXT, usage=None))).usage.known


async def test_what_it_does_not_have_is_said_before_anything_is_sent(one_server: FakeServer) -> None:
    one_server.fresh()
    async with anthropic(one_server.url) as provider:
        for request in (Request(prompt="Once", max_tokens=5), Request(texts=("a",)), question(grammar='root ::= "a"')):
            with pytest.raises(ProviderError, match="has no"):
                await provider.send(request)
    assert one_server.stats()["calls"] == 0


async def sent(body: dict[str, Any]) -> Any:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async with serving(answer) as url, anthropic(url) as provider:
        return await provider.send(question())
