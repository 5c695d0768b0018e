"""What a server's refusals, silences and half answers become, over real HTTP."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.fakes.fixtures import FakeServer
from tests.llm.lines import KINDS, PROVIDERS, Handler, openai, question, serving

from gristmill.core.errors import ConfigError, ProviderError
from gristmill.llm.provider import Refused, Request, Unanswered, Unreached, Unusable, Withheld
from gristmill.llm.wire.http import Patience, Wire

both = pytest.mark.parametrize("kind", PROVIDERS)


@pytest.fixture
def server(one_server: FakeServer) -> FakeServer:
    one_server.fresh()
    return one_server


async def failed(kind: str, url: str, request: Request | None = None, **spec: Any) -> ProviderError:
    async with KINDS[kind](url, **spec) as provider:  # type: ignore[operator]
        with pytest.raises(ProviderError) as caught:
            await provider.send(request or question())
    return caught.value


# ---- classes ----


@both
@pytest.mark.parametrize(("form", "wait"), [("seconds", 3), ("ms", 3), ("date", 3), ("reset", 3), ("none", None)])
async def test_busy_says_when_to_come_back(server: FakeServer, kind: str, form: str, wait: float | None) -> None:
    server.fresh(p429=1.0, wait_form=form, retry_after=3)
    error = await failed(kind, server.url)
    assert isinstance(error, Refused) and error.status == 429 and not error.charged
    assert error.retry_after == (None if wait is None else pytest.approx(wait, abs=1.1))


@both
@pytest.mark.parametrize(
    ("status", "kind_of"),
    [
        (400, ProviderError), (402, Unusable), (403, Unusable), (404, Unusable), (408, Unanswered), (409, Unanswered),
        (413, ProviderError), (422, ProviderError), (425, Unanswered), (500, Unanswered), (502, Unanswered),
        (503, Refused), (504, Unanswered), (529, Refused),
    ],
)  # fmt: skip
async def test_a_status_is_a_class_of_failure(
    server: FakeServer, kind: str, status: int, kind_of: type[ProviderError]
) -> None:
    server.fresh(status=status, words="So it is.")
    error = await failed(kind, server.url)
    assert isinstance(error, kind_of) and error.status == status and "So it is." in error.message
    assert error.transient is not (kind_of is ProviderError)
    assert isinstance(error, Refused) is (kind_of is Refused)
    assert isinstance(error, Unusable) is (kind_of is Unusable)


async def test_unavailable_without_a_wait_is_a_failed_attempt(server: FakeServer) -> None:
    server.fresh(status=503, wait_form="none")
    assert type(await failed("openai", server.url)) is Unanswered


@both
@pytest.mark.parametrize("empty", [{"broke": True}, {"status": 400, "words": "Your credit balance is too low."}])
async def test_an_empty_account_is_no_refusal(server: FakeServer, kind: str, empty: dict[str, Any]) -> None:
    server.fresh(**empty)
    error = await failed(kind, server.url)
    assert isinstance(error, Unusable) and not isinstance(error, Unanswered) and "account" in error.hint


@both
async def test_a_model_nobody_knows(server: FakeServer, kind: str) -> None:
    server.fresh(model="another")
    error = await failed(kind, server.url)
    assert isinstance(error, Unusable) and error.status == 404 and "model" in error.message


@both
async def test_a_prompt_too_long_is_final_and_in_the_providers_words(server: FakeServer, kind: str) -> None:
    server.fresh(context=60)
    error = await failed(kind, server.url, question("deep " * 100))
    assert not error.transient and error.status == 400
    assert "maximum" in error.message


@pytest.mark.parametrize(
    ("option", "words"),
    [("filter", "content_filter"), ("deny", "cannot assist"), ("blocked", "management policy")],
)
async def test_what_is_withheld_is_final(server: FakeServer, option: str, words: str) -> None:
    server.fresh(**{option: "pier"})
    error = await failed("openai", server.url)
    assert not error.transient and words in error.message
    if option != "blocked":
        assert isinstance(error, Withheld) and error.usage is not None and error.usage.output > 0


@both
async def test_an_empty_answer_is_none_and_paid(server: FakeServer, kind: str) -> None:
    server.fresh(mute="pier")
    error = await failed(kind, server.url)
    assert isinstance(error, Unanswered) and error.charged and error.usage is not None and error.usage.known
    async with KINDS[kind](server.url) as provider:  # type: ignore[operator]
        assert (await provider.send(question(stop=("\n",)))).text == ""  # a stop at once is a reason


@both
@pytest.mark.parametrize("fault", ["pbadjson", "pdrop"])
async def test_half_a_body_is_none_and_perhaps_paid(server: FakeServer, kind: str, fault: str) -> None:
    server.fresh(**{fault: 1.0})
    error = await failed(kind, server.url)
    assert isinstance(error, Unanswered) and error.charged


@pytest.mark.parametrize(("code", "kind_of"), [(429, Refused), (502, Unanswered), (400, ProviderError)])
async def test_a_gateways_hidden_failure_counts_as_what_it_is(
    server: FakeServer, code: int, kind_of: type[ProviderError]
) -> None:
    server.fresh(hidden=code)
    error = await failed("openai", server.url)
    assert type(error) is kind_of or (kind_of is ProviderError and not error.transient)


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    error = await failed("openai", url)
    assert isinstance(error, Unreached) and isinstance(error, Unusable) and not error.charged
    assert "cannot reach" in error.message


async def test_no_such_host() -> None:
    assert isinstance(await failed("openai", "http://nowhere.invalid/v1"), Unreached)


async def test_a_redirect_is_not_followed_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", "canary-key")

    async def away(_: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/elsewhere"})

    async with serving(away) as url:
        error = await failed("openai", url, api_key="env:FAKE_KEY")
    assert isinstance(error, Unusable) and "elsewhere" in error.message and "base_url" in error.hint


# ---- keys ----


@both
async def test_a_key_is_read_again_when_it_is_refused_and_never_shown(
    server: FakeServer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fresh(api_key="canary-first")
    monkeypatch.setenv("FAKE_KEY", "canary-first")
    async with KINDS[kind](server.url, api_key="env:FAKE_KEY") as provider:  # type: ignore[operator]
        await provider.send(question("one"))
        server.reset(api_key="canary-second")
        monkeypatch.setenv("FAKE_KEY", "canary-second")
        await provider.send(question("two"))
        await provider.send(question("three"))
        assert server.stats()["statuses"] == {"401": 1, "200": 2}
        server.reset(api_key="canary-third")
        with pytest.raises(Unusable, match="401") as caught:
            await provider.send(question("four"))
        assert "canary" not in caught.value.message and "env:FAKE_KEY" in caught.value.message
        assert server.stats()["calls"] == 1  # the key had not changed: asking again could not help


async def test_a_key_in_a_file_may_be_replaced_while_requests_are_under_way(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "key"
    place.write_text("canary-first\n")
    monkeypatch.setenv("FAKE_KEY_FILE", str(place))
    server.fresh(api_key="canary-first")
    async with openai(server.url, api_key="env:FAKE_KEY") as provider:
        await provider.send(question("one"))
        place.write_text("canary-second\n")
        server.reset(api_key="canary-second")
        await asyncio.gather(*(provider.send(question(f"two {n}")) for n in range(20)))
        assert server.stats()["statuses"]["200"] == 20 and server.stats()["statuses"]["401"] >= 1
        place.write_text("")
        server.reset(api_key="canary-third")
        with pytest.raises(
            Unanswered, match="FAKE_KEY_FILE names is empty"
        ):  # it may be in the middle of being written
            await provider.send(question("three"))
        place.write_text("canary-third\n")
        await provider.send(question("three"))


async def test_a_key_that_no_header_may_hold_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", "one\r\nX-Evil: two")
    async with openai("http://127.0.0.1:1/v1", api_key="env:FAKE_KEY") as provider:
        with pytest.raises(ConfigError, match="Authorization"):
            await provider.send(question())


async def test_two_keys_are_two_lines_and_neither_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    names = set()
    for value in ("canary-first", "canary-second"):
        monkeypatch.setenv("FAKE_KEY", value)
        async with openai("http://127.0.0.1:1/v1", api_key="env:FAKE_KEY") as provider:
            names.add(provider.name)
            assert provider.name == provider.name and "canary" not in provider.name
    assert len(names) == 2


# ---- clocks ----


async def silent(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(0.8)
    return web.Response()


def dripping(first: float, pause: float, pieces: list[bytes]) -> Handler:
    """An event stream: a comment at once, its first piece after `first` seconds, the others `pause` apart."""

    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for n in range(int(first / 0.05)):
            await response.write(b": wait\n\n")
            await asyncio.sleep(0.05 if n >= 0 else 0)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause)
        return response

    return drip


def chunk(text: str, finish: str | None = None) -> bytes:
    end = f'"{finish}"' if finish else "null"
    return b'data: {"choices":[{"delta":{"content":"%b"},"finish_reason":%b}]}\n\n' % (text.encode(), end.encode())


PIECES = [chunk("The "), chunk("pier."), chunk("", "stop"), b"data: [DONE]\n\n"]


@pytest.mark.parametrize(
    ("handler", "spec", "words"),
    [
        (silent, {"timeout": 0.2}, r"did not answer within 0\.2 s"),
        (silent, {"timeout": 5, "stream": True, "first_token_timeout": 0.2}, r"begin its answer within 0\.2 s"),
        (dripping(2, 0, PIECES), {"timeout": 5, "stream": True, "first_token_timeout": 0.3}, r"begin .* 0\.3 s"),
        (dripping(0, 2, PIECES), {"timeout": 5, "stream": True, "idle_timeout": 0.3}, r"go on .* within 0\.3 s"),
        (dripping(0, 0.2, PIECES * 9), {"timeout": 0.5, "stream": True, "idle_timeout": 0.4}, r"answer within 0\.5 s"),
    ],
)
async def test_each_clock_has_its_own_words(handler: Handler, spec: dict[str, Any], words: str) -> None:
    async with serving(handler) as url, openai(url, **spec) as provider:
        with pytest.raises(Unanswered, match=words) as caught:
            await provider.send(question())
    assert caught.value.charged and "Raise the model's" in caught.value.hint


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
WORKING = b"HTTP/1.1 102 Processing\r\n\r\n"


@asynccontextmanager
async def speaking(pieces: Iterable[bytes], pause: float) -> AsyncIterator[str]:
    """The address of a server that answers one request by these bytes, with a pause after each."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(OSError):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(over.wait(), pause)
        writer.close()
        speakers.release()

    over, speakers = asyncio.Event(), asyncio.Semaphore(0)
    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        over.set()
        await speakers.acquire()
        server.close()


@pytest.mark.parametrize(
    ("pieces", "pause"),
    [
        ([WORKING] * 15, 0.1),
        ([WORKING], 1.5),
        ([HEAD[n : n + 1] for n in range(15)], 0.1),
        ([HEAD, *[b"X-Padding: 1\r\n"] * 14], 0.1),
    ],
    ids=["working", "silent", "letters", "lines"],
)
@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"timeout": 0.3}, r"did not answer within 0\.3 s"),
        ({"timeout": 0.3, "stream": True, "first_token_timeout": 5}, r"did not answer within 0\.3 s"),
        ({"timeout": 5, "stream": True, "first_token_timeout": 0.3}, r"begin its answer within 0\.3 s"),
    ],
    ids=["whole", "streamed", "first"],
)
async def test_a_head_that_never_ends_stops_no_clock(
    pieces: list[bytes], pause: float, spec: dict[str, Any], words: str
) -> None:
    began = time.monotonic()
    async with speaking(pieces, pause) as url, openai(url, **spec) as provider:
        with pytest.raises(Unanswered, match=words) as caught:
            await provider.send(question())
        assert time.monotonic() - began < 1 and caught.value.charged


async def test_a_server_may_say_that_it_is_working() -> None:
    body = b'{"choices":[{"message":{"content":"Four."},"finish_reason":"stop"}]}'
    answer = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with speaking([WORKING, WORKING, answer], 0.1) as url, openai(url, timeout=2) as provider:
        assert (await provider.send(question())).text == "Four."


async def test_a_slow_answer_within_its_clocks_is_an_answer() -> None:
    handler = dripping(0.3, 0.1, PIECES)
    spec = {"stream": True, "first_token_timeout": 1, "idle_timeout": 0.5, "timeout": 5}
    async with serving(handler) as url, openai(url, **spec) as provider:
        assert (await provider.send(question())).text == "The pier."


async def test_a_connection_that_never_stands() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        taken = [socket.create_connection(address) for _ in range(1)]
        with socket.socket() as another:
            another.setblocking(False)
            another.connect_ex(address)
            for patience in (Patience(connect=0.2, total=3), Patience(connect=3, total=0.2)):
                wire = Wire(f"http://127.0.0.1:{address[1]}", patience=patience)
                with pytest.raises(Unreached, match=r"no connection within 0\.2 s"):
                    await wire.post("/v1", {})
                await wire.close()
        for connection in taken:
            connection.close()


# ---- bodies ----


@pytest.mark.parametrize("reply", ["[]", '{"choices": []}', '{"choices": [{"finish_reason": "stop"}]}', '"busy"', ""])
async def test_an_answer_of_another_shape_is_no_answer(reply: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=reply, content_type="application/json")

    async with serving(answer) as url:
        error = await failed("openai", url)
    assert isinstance(error, Unanswered) and error.charged


async def test_a_web_page_is_the_wrong_address() -> None:
    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>Welcome</title>", content_type="text/html")

    async with serving(page) as url:
        error = await failed("openai", url)
    assert isinstance(error, Unusable) and "Welcome" in error.message and "base_url" in error.hint


async def test_an_endless_answer_is_cut_and_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.llm.wire.http.LARGEST_REPLY", 1 << 20)
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 64 << 20:  # ends earlier: the client hangs up
            await response.write(b" " * 65536)
            sent += 65536
        return response

    async with serving(endless) as url:
        error = await failed("openai", url)
    assert isinstance(error, Withheld) and error.status == 200 and "more than 1 MiB" in error.message
    assert sent < 32 << 20


async def test_a_large_body_in_many_pieces_arrives_whole() -> None:
    text = "deep water " * 200_000

    async def answer(request: web.Request) -> web.StreamResponse:
        body = {"choices": [{"message": {"content": text}, "finish_reason": "stop"}]}
        response = web.json_response(body)
        response.enable_compression()
        return response

    async with serving(answer) as url, openai(url) as provider:
        assert (await provider.send(question())).text == text


async def test_connections_are_kept_and_a_broken_one_is_not(server: FakeServer) -> None:
    ports: list[int] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.transport is not None
        ports.append(request.transport.get_extra_info("peername")[1])
        if len(ports) == 2:
            return web.Response(text="{")
        return web.json_response({"choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}]})

    async with serving(answer) as url, openai(url) as provider:
        await provider.send(question())
        with pytest.raises(Unanswered):
            await provider.send(question())
        await provider.send(question())
    assert ports[0] == ports[1] == ports[2]  # what was malformed came whole


async def test_who_gives_up_closes_the_connection(server: FakeServer) -> None:
    server.fresh(latency_ms=5000)
    async with openai(server.url) as provider:
        asked = asyncio.create_task(provider.send(question()))
        await asyncio.sleep(0.2)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        server.fresh()
        assert (await provider.send(question())).text


@both
async def test_the_quota_comes_with_answers_and_refusals(server: FakeServer, kind: str) -> None:
    server.fresh(rpm=2)
    async with KINDS[kind](server.url) as provider:  # type: ignore[operator]
        reply = await provider.send(question())
        assert reply.quota is not None
        assert (reply.quota.requests_limit, reply.quota.requests_left) == (2, 1)
        await provider.send(question("Another?"))
        with pytest.raises(Refused) as caught:
            await provider.send(question("A third?"))
    assert caught.value.quota is not None and caught.value.quota.requests_left == 0
