"""What a server takes is found by asking it; no row is lost to finding out, and it is found out once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.fakes.fixtures import FakeServer
from tests.llm.lines import KINDS, PROVIDERS, openai, question

from gristmill.core.errors import ProviderError
from gristmill.core.logs import logging_to
from gristmill.llm.provider import Provider, Reply, Request, Unanswered
from gristmill.llm.providers.demand import fits, without_bounds
from gristmill.llm.providers.probe import REMEMBERED_SECONDS

both = pytest.mark.parametrize("kind", PROVIDERS)

SCHEMA = {
    "type": "object",
    "properties": {
        "question": {"type": "string", "maxLength": 80, "description": "One sentence."},
        "number": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["question", "number"],
    "additionalProperties": False,
}
STRUCTURED = question(schema=SCHEMA, schema_name="Pair")


class Notes:
    """What the store keeps, without its disk."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.age = 0.0

    def notes(self, space: str) -> dict[str, dict[str, Any]]:
        assert space == "probe"
        return {name: {**orjson.loads(orjson.dumps(data)), "age": self.age} for name, data in self.kept.items()}

    async def put_note(self, space: str, name: str, data: dict[str, Any] | None) -> None:
        assert space == "probe" and data is not None
        self.kept[name] = data


async def answered(provider: Provider, request: Request, *, attempts: int = 6) -> tuple[Reply, int]:
    """As the client asks: again after an attempt that may be repeated. The reply, and how many attempts were lost."""
    for lost in range(attempts):
        try:
            return await provider.send(request), lost
        except Unanswered as error:
            assert error.charged and error.usage is not None
    raise AssertionError("never answered")


@pytest.mark.parametrize(
    ("options", "way", "refused"),
    [
        ({}, "schema", 0),
        ({"no_bounds": True}, "bare", 1),
        ({"json_modes": "json_object"}, "object", 2),
        ({"json_modes": "json_schema"}, "schema", 0),
        ({"json_modes": ""}, "prompt", 3),
        ({"refuses": "response_format", "style": "fastapi"}, "prompt", 3),
    ],
)
async def test_the_strictest_way_that_a_server_takes(
    one_server: FakeServer, options: dict[str, Any], way: str, refused: int
) -> None:
    one_server.fresh(**options)
    notes = Notes()
    async with openai(one_server.url, notes=notes) as provider:
        for n in range(3):
            reply = await provider.send(question(f"How deep is pier {n}?", schema=SCHEMA, schema_name="Pair"))
            assert fits(reply.text, SCHEMA, by_keys=True)
    statuses = one_server.stats()["statuses"]
    assert statuses.pop("200") == 3 and sum(statuses.values()) == refused
    assert [note["json"] for note in notes.kept.values()] == [way]
    one_server.reset()
    async with openai(one_server.url, notes=notes) as provider:  # another run begins with what this one found
        await provider.send(STRUCTURED)
    assert one_server.stats()["statuses"] == {"200": 1}


async def test_a_finding_grows_old(one_server: FakeServer) -> None:
    one_server.fresh(json_modes="")
    notes = Notes()
    async with openai(one_server.url, notes=notes) as provider:
        await provider.send(STRUCTURED)
    notes.age = REMEMBERED_SECONDS + 1
    one_server.fresh()
    async with openai(one_server.url, notes=notes) as provider:
        await provider.send(STRUCTURED)
    assert [note["json"] for note in notes.kept.values()] == ["schema"]


@pytest.mark.parametrize(("mode", "lost"), [("auto", 2), ("schema", 0), ("object", 0), ("prompt", 0)])
async def test_a_server_that_ignores_the_demand_is_noticed(one_server: FakeServer, mode: str, lost: int) -> None:
    one_server.fresh(ignores_json=True)
    async with openai(one_server.url, json_mode=mode) as provider:
        reply, given_up = await answered(provider, STRUCTURED)
    assert given_up == lost and not fits(reply.text, SCHEMA, by_keys=True)  # which its asker will not take


async def test_one_answer_that_does_not_fit_changes_nothing_once_others_did(one_server: FakeServer) -> None:
    one_server.fresh()
    async with openai(one_server.url) as provider:
        await provider.send(STRUCTURED)
        one_server.fresh(pinvalid=1.0)
        assert (await provider.send(STRUCTURED)).text == '{"wrong": true}'
        one_server.fresh()
        assert "response_format" in provider.body(STRUCTURED)[1]


async def test_many_at_once_find_out_together(one_server: FakeServer) -> None:
    one_server.fresh(no_bounds=True, latency_ms=20, refuses="max_tokens,temperature")
    async with openai(one_server.url) as provider:
        asked = [question(f"How deep is pier {n}?", schema=SCHEMA, schema_name="Pair") for n in range(20)]
        replies = await asyncio.gather(*map(provider.send, asked))
    assert all(fits(reply.text, SCHEMA, by_keys=True) for reply in replies)
    assert one_server.stats()["statuses"]["200"] == 20


async def test_a_refusal_of_the_row_is_not_taken_for_one_of_the_demand(one_server: FakeServer) -> None:
    one_server.fresh(refuse="pier")
    async with openai(one_server.url) as provider:
        with pytest.raises(ProviderError, match="context length"):
            await provider.send(STRUCTURED)
        assert one_server.stats()["calls"] == 1
        one_server.fresh()
        await provider.send(STRUCTURED)
        assert "response_format" in provider.body(STRUCTURED)[1]


@pytest.mark.parametrize("style", ["openai", "fastapi"])
@pytest.mark.parametrize("name", ["max_tokens", "temperature", "seed", "stop"])
async def test_a_parameter_that_is_not_taken_is_left_out(one_server: FakeServer, name: str, style: str) -> None:
    one_server.fresh(refuses=name, style=style)
    notes = Notes()
    request = question(temperature=0.5, seed=7, stop=("deep",))
    async with openai(one_server.url, notes=notes) as provider:
        reply = await provider.send(request)
        body = provider.body(request)[1]
        await provider.send(question("Another?"))
    assert one_server.stats()["statuses"] == {"422" if style == "fastapi" else "400": 1, "200": 2}
    assert name not in body and body.get("max_completion_tokens", body.get("max_tokens")) == 50
    assert [note["without"] for note in notes.kept.values()] == [[name]]
    assert "deep" not in reply.text or name != "stop"  # it is cut here instead


async def test_what_is_left_out_is_said_in_the_log(one_server: FakeServer, tmp_path: Path) -> None:
    one_server.fresh(refuses="temperature", json_modes="json_object")
    with logging_to(tmp_path / "log.ndjson", run="r"):
        async with openai(one_server.url) as provider:
            await provider.send(STRUCTURED)
    said = [orjson.loads(line) for line in (tmp_path / "log.ndjson").read_bytes().splitlines()]
    assert [line["event"] for line in said] == ["parameter refused", "json mode refused", "json mode refused"]
    assert said[0]["parameter"] == "temperature" and "Only the default" in said[0]["words"]
    assert [line["next"] for line in said[1:]] == ["bare", "object"]


async def test_what_cannot_be_left_out_is_final(one_server: FakeServer) -> None:
    one_server.fresh(refuses="messages")
    async with openai(one_server.url) as provider:
        with pytest.raises(ProviderError, match="'messages' is not supported") as caught:
            await provider.send(question())
    assert not caught.value.transient and one_server.stats()["calls"] == 1
    one_server.fresh(refuses="max_tokens,max_completion_tokens")
    async with openai(one_server.url) as provider:
        with pytest.raises(ProviderError, match="max_completion_tokens"):
            await provider.send(question())
    assert one_server.stats()["calls"] == 2


async def test_openais_own_address_is_asked_in_its_own_words() -> None:
    async with openai("https://api.openai.com/v1") as provider:
        assert provider.body(question())[1]["max_completion_tokens"] == 50
        assert provider.body(Request(prompt="Once", max_tokens=5))[1]["max_tokens"] == 5


def test_bounds_move_into_the_descriptions() -> None:
    plain = without_bounds(SCHEMA | {"$comment": "c"})
    assert plain["properties"]["question"] == {"type": "string", "description": "One sentence. {maxLength: 80}"}
    assert plain["properties"]["number"] == {"type": "integer", "description": "{minimum: 1, maximum: 5}"}
    assert plain["required"] == SCHEMA["required"] and plain["additionalProperties"] is False


def test_a_property_may_be_called_like_a_bound() -> None:
    named = {"type": "object", "properties": {"pattern": {"type": "string", "maxLength": 3}}, "required": ["pattern"]}
    assert "pattern" in without_bounds(named)["properties"]


@pytest.mark.parametrize(
    ("text", "whole"),
    [('{"question": "q", "number": 1}', True), ('```json\n{"question": "q", "number": 1}\n```', True),
     ('{"number": 1}', False), ("[]", False), ("no", False), ("", False)],
)  # fmt: skip
def test_what_fits(text: str, whole: bool) -> None:
    assert fits(text, SCHEMA, by_keys=True) is whole


@both
async def test_the_bound_of_the_input_holds_whatever_is_asked(one_server: FakeServer, kind: str) -> None:
    for options in ({}, {"json_modes": "tool"}, {"json_modes": ""}):
        one_server.fresh(**options)
        async with KINDS[kind](one_server.url) as provider:  # type: ignore[operator]
            bound = provider.input_bound(STRUCTURED)
            reply = await provider.send(STRUCTURED)
            sent = len(orjson.dumps(provider.body(STRUCTURED)[1]["messages"]))
        assert reply.usage.input <= sent // 3 <= bound
