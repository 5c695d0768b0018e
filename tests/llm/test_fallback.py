"""A model that serves nobody: its requests go to who stands in for it, or the run stops with one clear message."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer, fake_server
from tests.llm.conftest import user

from gristmill.core.ask import Model
from gristmill.core.errors import GristmillError, ProviderError, Unreachable
from gristmill.llm import line
from gristmill.llm.client import Client
from gristmill.llm.spec import OpenAISpec
from gristmill.runs.plan import make_plan
from gristmill.runs.source import RecipeError


@pytest.fixture(scope="module")
def one_other() -> Iterator[FakeServer]:
    with fake_server() as server:
        yield server


@pytest.fixture
def other(one_other: FakeServer) -> FakeServer:
    one_other.fresh()
    return one_other


Events = list[tuple[str, dict[str, Any]]]


def spec_of(url: str, **more: Any) -> OpenAISpec:
    return OpenAISpec(provider="openai", model="m", base_url=url, **more)


def with_fallback(make_client: Callable[..., Client], first: OpenAISpec, then: OpenAISpec) -> tuple[Model, Events]:
    events: Events = []
    client = make_client(emit=lambda event, **data: events.append((event, data)))
    return client.model("writer", first, stage="qa", fallback=[("spare", then, None)]), events


def nowhere() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


REFUSALS = [
    ({"status": 401, "words": "Incorrect key provided."}, "401: Incorrect key", "`api_key` names"),
    ({"model": "another"}, "404", "the model's name"),
    ({"status": 402, "words": "Payment required."}, "402: Payment required", "no money"),
    ({"broke": True}, "429.*quota", "no money"),
]


@pytest.mark.parametrize(("options", "words", "hint"), REFUSALS)
async def test_a_model_that_has_never_answered_stops_the_run(
    fake: FakeServer, model: Callable[..., Model], options: dict[str, Any], words: str, hint: str
) -> None:
    fake.fresh(**options)
    with pytest.raises(Unreachable, match=rf"the model `writer` cannot be asked: {fake.url}.*{words}") as caught:
        await model().chat(user("Hello"), max_tokens=5)
    assert hint in caught.value.hint and caught.value.exit_code == 4
    assert fake.stats()["calls"] == 1


async def test_one_row_that_a_firewall_forbids_is_that_row_alone(fake: FakeServer, model: Callable[..., Model]) -> None:
    fake.fresh(status=403, words="Forbidden.")
    asked = model()
    with pytest.raises(ProviderError, match="403") as caught:
        await asked.chat(user("row 3"), max_tokens=5)
    assert not isinstance(caught.value, Unreachable)
    fake.fresh()
    await asked.chat(user("row 4"), max_tokens=5)
    fake.fresh(status=403, words="Forbidden.")
    for n in range(line.TURNED_AWAY):
        with pytest.raises(ProviderError, match="403") as caught:
            await asked.chat(user(f"Question {n}"), max_tokens=5)
    assert isinstance(caught.value, Unreachable)


async def test_nobody_listens(model: Callable[..., Model]) -> None:
    began = time.monotonic()
    with pytest.raises(Unreachable, match="cannot be asked"):
        await model(base_url=nowhere(), attempts=3).chat(user("Hello"), max_tokens=5)
    assert time.monotonic() - began < 3


async def test_once_it_has_answered_it_is_that_row_alone(fake: FakeServer, model: Callable[..., Model]) -> None:
    fake.fresh()
    asked = model()
    await asked.chat(user("one"), max_tokens=5)
    fake.fresh(api_key="another")
    with pytest.raises(ProviderError, match="401") as caught:
        await asked.chat(user("two"), max_tokens=5)
    assert not isinstance(caught.value, Unreachable) and caught.value.transient


async def test_a_key_that_is_withdrawn_stops_the_run_soon(fake: FakeServer, model: Callable[..., Model]) -> None:
    asked = model()
    await asked.chat(user("one"), max_tokens=5)
    fake.fresh(api_key="another")
    for n in range(line.TURNED_AWAY - 1):
        with pytest.raises(ProviderError, match="401") as caught:
            await asked.chat(user(f"row {n}"), max_tokens=5)
        assert not isinstance(caught.value, Unreachable)
    with pytest.raises(Unreachable, match=r"the model `writer` cannot be asked: .* 401"):
        await asked.chat(user("the tenth"), max_tokens=5)


@pytest.mark.parametrize("why", ["refused", "nobody listens", "out of order"])
async def test_the_next_provider_answers_and_the_answer_says_so(
    fake: FakeServer, other: FakeServer, make_client: Callable[..., Client], why: str
) -> None:
    fake.fresh(**({"api_key": "another"} if why == "refused" else {"p500": 1.0} if why == "out of order" else {}))
    first = spec_of(nowhere() if why == "nobody listens" else fake.url, attempts=2, fallback=("spare",))
    model, events = with_fallback(make_client, first, spec_of(other.url))
    answers = await asyncio.gather(*(model.chat(user(f"Question {n}"), max_tokens=9) for n in range(20)))
    assert {answer.model for answer in answers} == {f"{other.url} m"} != {model.identity}
    assert other.stats()["calls"] == 20
    (event,) = events
    assert event[0] == "model.down" and event[1]["role"] == "writer" and first.base_url in event[1]["error"]
    before = fake.stats()["calls"]
    await model.chat(user("One more"), max_tokens=9)
    assert fake.stats()["calls"] == before  # who is down is not asked again and again


async def test_who_was_down_is_asked_again_after_a_while(
    fake: FakeServer, other: FakeServer, make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "DOWN_SECONDS", 0.2)
    fake.fresh(api_key="another")
    model, events = with_fallback(make_client, spec_of(fake.url, fallback=("spare",)), spec_of(other.url))
    assert (await model.chat(user("one"), max_tokens=9)).model == f"{other.url} m"
    fake.fresh()
    await asyncio.sleep(0.25)
    assert (await model.chat(user("two"), max_tokens=9)).model == f"{fake.url} m"
    assert [name for name, _ in events] == ["model.down", "model.up"]


async def test_one_sees_whether_who_was_down_serves_again(
    fake: FakeServer, other: FakeServer, make_client: Callable[..., Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "DOWN_SECONDS", 0.2)
    fake.fresh(api_key="another")
    model, _ = with_fallback(make_client, spec_of(fake.url, fallback=("spare",)), spec_of(other.url))
    await model.chat(user("one"), max_tokens=9)
    before = fake.stats()["calls"]
    await asyncio.sleep(0.25)
    monkeypatch.setattr(line, "DOWN_SECONDS", 60)
    await asyncio.gather(*(model.chat(user(f"Question {n}"), max_tokens=9) for n in range(20)))
    assert (fake.stats()["calls"], other.stats()["calls"]) == (before + 1, 21)


async def test_what_is_stored_is_found_whoever_is_down(
    fake: FakeServer, other: FakeServer, make_client: Callable[..., Client]
) -> None:
    """Of the first while it is down, and of who stood in for it, in this run and in the next."""
    fake.fresh()
    first, then = spec_of(fake.url, fallback=("spare",)), spec_of(other.url)
    model, _ = with_fallback(make_client, first, then)
    early = [await model.chat(user(f"Early {n}"), max_tokens=9) for n in range(3)]
    fake.fresh(api_key="another")
    late = [await model.chat(user(f"Late {n}"), max_tokens=9) for n in range(3)]
    assert [answer.model for answer in early + late] == [f"{fake.url} m"] * 3 + [f"{other.url} m"] * 3
    fake.fresh(api_key="another")
    other.fresh()
    for asked in (model, with_fallback(make_client, first, then)[0]):
        again = [await asked.chat(user(f"{when} {n}"), max_tokens=9) for when in ("Early", "Late") for n in range(3)]
        assert again == early + late
    assert (fake.stats()["calls"], other.stats()["calls"]) == (0, 0)


async def test_when_all_are_down_the_run_stops(
    fake: FakeServer, other: FakeServer, make_client: Callable[..., Client]
) -> None:
    fake.fresh(api_key="another")
    other.fresh(api_key="another")
    model, _ = with_fallback(make_client, spec_of(fake.url, fallback=("spare",)), spec_of(other.url))
    with pytest.raises(Unreachable, match="nor those that stand in for it"):
        await model.chat(user("one"), max_tokens=9)


async def test_status_says_who_is_down(fake: FakeServer, other: FakeServer, make_client: Callable[..., Client]) -> None:
    fake.fresh(api_key="another")
    client = make_client()
    first, spare = spec_of(fake.url, concurrency=3, fallback=("spare",)), spec_of(other.url)
    model = client.model("writer", first, stage="qa", fallback=[("spare", spare, None)])
    await model.chat(user("one"), max_tokens=9)
    one, two = client.lines()
    assert (one.roles, one.answered, one.limit) == (("writer",), 0, 3) and "401" in (one.down or "")
    assert (two.roles, two.answered, two.in_flight, two.down) == (("spare",), 1, 0, None)
    assert client.window([first]) == 6


def test_a_spec_that_is_gone_lends_its_limit_to_no_other(make_client: Callable[..., Client], fake: FakeServer) -> None:
    client = make_client()
    first = spec_of(fake.url, concurrency=3)
    for stage in ("qa", "exam"):  # the second finds the line of the first, and only its own spec is gone
        client.model("writer", first, stage=stage, fallback=[("spare", spec_of(fake.url, concurrency=50), None)])
    assert {client.window([spec_of(fake.url, concurrency=2)]) for _ in range(1000)} == {4}


RECIPE = """
name: x
models:
  writer: {{provider: openai, base_url: "http://localhost:1/v1", model: m, fallback: [{other}]}}
  spare: {{provider: openai, base_url: "http://localhost:2/v1", model: m}}
  tuned: {{from: ask}}
stages:
  read: {{kind: ingest.read, paths: [here]}}
  chunks: {{kind: ingest.chunk}}
  ask: {{kind: generate.qa, model: writer}}
"""


def test_a_recipe_names_who_stands_in_and_results_depend_on_it(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.format(other="spare"))
    assert make_plan(recipe).node("ask").roles == ("writer", "spare")
    for other, words in (("nobody", "no other model: nobody"), ("writer", "no other"), ("tuned", "a stage trains")):
        recipe.write_text(RECIPE.format(other=other))
        with pytest.raises(RecipeError) as caught:
            make_plan(recipe)
        assert any(words in str(problem) for problem in caught.value.problems)
    recipe.write_text("budget: {usd: 1}\n" + RECIPE.format(other="spare").replace("localhost:2", "llm.example.com"))
    with pytest.raises(GristmillError, match=r"needs the price of models\.spare"):
        make_plan(recipe)
