"""Answers that must fit: schemas as decoders want them, and what happens when an answer does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from tests.fakes.fixtures import FakeServer
from tests.llm.conftest import user

from gristmill.core.ask import Model
from gristmill.core.errors import ConfigError, Reject
from gristmill.llm.client import Client
from gristmill.llm.schema import parse_json, schema_of

Short = Annotated[str, Field(max_length=80)]


class Pair(BaseModel):
    """A question and its answer."""

    question: Short
    answer: Short
    sentence: int = Field(ge=1, le=5)
    kind: Literal["name", "number"] = "name"


class Pairs(BaseModel):
    pairs: list[Pair] = Field(min_length=2, max_length=3)
    note: Short | None = None


class Sloppy(BaseModel):
    text: str


class Tree(BaseModel):
    name: Short
    children: list[Tree] = Field(max_length=2)


def test_a_schema_is_closed_and_whole_and_holds_its_definitions() -> None:
    schema = schema_of(Pairs)
    assert "$defs" not in str(schema) and "$ref" not in str(schema)
    assert schema["additionalProperties"] is False and schema["required"] == ["pairs", "note"]
    pair = schema["properties"]["pairs"]["items"]
    assert pair["additionalProperties"] is False
    assert pair["required"] == ["question", "answer", "sentence", "kind"]
    assert pair["properties"]["sentence"] == {"maximum": 5, "minimum": 1, "type": "integer"}


@pytest.mark.parametrize(("model", "words"), [(Sloppy, "no upper bound"), (Tree, "holds itself")])
def test_a_schema_that_lets_an_answer_go_on_for_ever_is_refused(model: type[BaseModel], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        schema_of(model)


PAIR = '{"question": "q", "answer": "a", "sentence": 2}'


@pytest.mark.parametrize(
    "text",
    [PAIR, f"\n {PAIR} ", f"```json\n{PAIR}\n```", f"```\n{PAIR}\n```", f"Here it is:\n```JSON\n{PAIR}\n```\nDone."],
)
def test_a_code_fence_is_taken_off(text: str) -> None:
    assert parse_json(Pair, text).sentence == 2


@pytest.mark.parametrize("text", ["", "no", "```json\n{\n```", '{"question": 1}', PAIR.replace("2", "9")])
def test_what_does_not_fit_is_said_in_few_words(text: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse_json(Pair, text)
    assert "errors.pydantic.dev" not in str(caught.value) and len(str(caught.value)) < 400


@given(st.text())
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(Pair, text)


@pytest.mark.parametrize("mode", ["schema", "object", "prompt"])
async def test_a_structured_answer(model: Callable[..., Model], mode: str) -> None:
    got = await model(json_mode=mode).structured(user("The ferry leaves Saltmere at noon."), Pairs, max_tokens=400)
    assert 2 <= len(got.value.pairs) <= 3
    assert got.calls == (got.answer.key,)


async def test_an_invalid_answer_is_asked_again_with_what_was_wrong(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(pinvalid=1.0, bad_until_turns=1)
    client = make_client()
    got = await model(client=client).structured(user("The ferry leaves at noon."), Pairs, max_tokens=400)
    assert len(got.calls) == 2 and got.answer.key == got.calls[1]
    assert client.counters["qa"]["invalid"] == 1
    first, second = client.store.calls(got.calls)
    told = second["request"]["messages"]
    assert [m["role"] for m in told] == ["user", "assistant", "user"]
    assert told[1]["content"] == first["reply"]["text"]
    assert "pairs: Field required" in told[2]["content"]


async def test_a_truncated_answer_is_never_accepted(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(plength=1.0, bad_until_turns=9)
    client = make_client()
    asked = model(client=client)
    with pytest.raises(Reject, match="truncated answer"):
        await asked.ask(user("The ferry leaves at noon."), str, max_tokens=40)
    assert client.counters["qa"]["truncated"] == 3 and fake.stats()["calls"] == 3
    with pytest.raises(Reject, match="truncated answer"):  # again: from the store
        await asked.ask(user("The ferry leaves at noon."), str, max_tokens=40)
    assert fake.stats()["calls"] == 3
    assert (await asked.chat(user("The ferry leaves at noon."), max_tokens=40)).finish == "length"  # an exam sees it


async def test_after_the_last_attempt_the_reason_is_kept(fake: FakeServer, model: Callable[..., Model]) -> None:
    def never(text: str) -> int:
        raise ValueError("it names no ship")

    with pytest.raises(Reject, match="invalid answer") as caught:
        await model().ask(user("The ferry leaves at noon."), never, max_tokens=40, attempts=2)
    assert caught.value.detail == "it names no ship"
    assert fake.stats()["calls"] == 2
