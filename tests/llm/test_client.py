"""Paid for once: across stages, processes and kills. What is in a key, and what is not."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer
from tests.llm.conftest import user

from gristmill.core.ask import Model
from gristmill.core.errors import ConfigError, ProviderError, Reject
from gristmill.core.records import Message
from gristmill.core.store import open_store
from gristmill.llm.client import Client
from gristmill.llm.spec import OpenAISpec, StageSpec


async def test_the_same_question_is_asked_once_in_a_life(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    first, second = make_client(), make_client(run="another")
    one = await model(client=first).chat(user("How deep is it?"), max_tokens=20)
    two = await model(client=second).chat(user("How deep is it?"), max_tokens=20)
    assert one == two
    assert fake.stats()["calls"] == 1
    assert second.counters["qa"] == {"cached": 1}
    assert second.store.spent("another").calls == 0


async def test_identical_calls_in_flight_are_sent_once_whoever_asks(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(latency_ms=50)
    client = make_client()
    askers = [model(client=client, stage=stage) for stage in ("a", "b")] * 10
    answers = await asyncio.gather(*(m.chat(user("How deep is it?"), max_tokens=20) for m in askers))
    assert len({a.key for a in answers}) == 1
    assert fake.stats()["calls"] == 1
    assert client.counters["a"]["shared"] + client.counters["b"]["shared"] == 19


async def test_who_waits_is_served_when_the_one_who_asked_gives_up(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(latency_ms=200)
    asked = model(client=make_client())
    first = asyncio.create_task(asked.chat(user("How deep is it?"), max_tokens=20))
    await asyncio.sleep(0.05)
    waiting = [asyncio.create_task(asked.chat(user("How deep is it?"), max_tokens=20)) for _ in range(3)]
    await asyncio.sleep(0.01)
    first.cancel()
    waiting[2].cancel()
    results = await asyncio.gather(first, *waiting, return_exceptions=True)
    assert [type(r).__name__ for r in results] == ["CancelledError", "Answer", "Answer", "CancelledError"]
    assert fake.stats()["calls"] == 2


async def test_who_waits_hears_of_the_failure_too(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(latency_ms=50, refuse="deep")
    asked = model(client=make_client())
    both = await asyncio.gather(
        *(asked.chat(user("How deep is it?"), max_tokens=20) for _ in range(2)), return_exceptions=True
    )
    assert all(isinstance(r, ProviderError) for r in both)
    assert fake.stats()["calls"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 21}, {"temperature": 0.5}, {"stop": ["x"]}, {"sample": 1},
        {"messages": user("How deep is it ?")},
        {"messages": [Message(role="system", content="Be brief."), *user("How deep is it?")]},
    ],
)  # fmt: skip
async def test_whatever_may_change_the_answer_changes_the_key(
    model: Callable[..., Model], change: dict[str, Any]
) -> None:
    asked = model()
    plain = {"messages": user("How deep is it?"), "max_tokens": 20}
    assert (await asked.chat(**plain)).key != (await asked.chat(**{**plain, **change})).key


async def test_the_seed_matters_only_where_sampling_is_random(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    one, two = (model(client=make_client(seed=seed)) for seed in (1, 2))
    greedy = [await m.chat(user("How deep?"), max_tokens=20) for m in (one, two)]
    drawn = [await m.chat(user("How deep?"), max_tokens=20, temperature=1.0) for m in (one, two)]
    again = await one.chat(user("How deep?"), max_tokens=20, temperature=1.0, sample=1)
    assert greedy[0].key == greedy[1].key
    assert len({drawn[0].key, drawn[1].key, again.key}) == 3
    assert fake.stats()["calls"] == 4 and len(fake.stats()["attempts"]) == 4  # each with a seed of its own


async def test_the_key_of_the_provider_and_how_it_is_asked_change_nothing(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_KEY", "sk-very-secret")
    client = make_client()
    one = await model(client=client).chat(user("How deep?"), max_tokens=20)
    other = model(client=client, api_key="env:FAKE_KEY", concurrency=2, timeout=7)
    two = await other.chat(user("How deep?"), max_tokens=20)
    assert one == two
    await model(client=client, api_key="env:FAKE_KEY").chat(user("How far?"), max_tokens=20)
    client.store.close()
    assert b"sk-very-secret" not in b"".join(p.read_bytes() for p in client.workspace.glob("store.db*"))


async def test_an_answer_leads_back_to_its_question(
    make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    client = make_client()
    asked = model(client=client)
    answer = await asked.chat(user("How deep is it?"), max_tokens=20)
    (call,) = client.store.calls([answer.key])
    assert call["request"]["messages"] == [{"role": "user", "content": "How deep is it?"}]
    assert call["request"]["model"] == asked.identity
    assert call["reply"]["text"] == answer.text
    assert (call["run"], call["stage"], call["role"]) == ("r", "qa", "writer")


async def test_an_answer_is_durable_before_it_is_parsed(
    make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    client = make_client()

    def parse(text: str) -> str:
        other = open_store(client.workspace / "store.db")
        assert other.spent("r").calls == 1
        other.close()
        raise Reject("seen enough")

    with pytest.raises(Reject, match="seen enough"):
        await model(client=client).ask(user("How deep is it?"), parse, max_tokens=20)


async def test_a_model_that_no_stage_has_trained_yet_is_refused(make_client: Callable[..., Client]) -> None:
    with pytest.raises(ConfigError, match="tuned is trained by a stage"):
        make_client().model("tuned", StageSpec.model_validate({"from": "tune"}), stage="exam")


async def test_slots_hold_over_all_stages(
    fake: FakeServer, make_client: Callable[..., Client], model: Callable[..., Model]
) -> None:
    fake.reset(latency_ms=5)
    client = make_client()
    stages = [model(client=client, stage=stage, concurrency=4) for stage in "abc"]
    await asyncio.gather(*(m.chat(user(f"Question {n} {m}"), max_tokens=9) for m in stages for n in range(20)))
    assert fake.stats()["max_in_flight"] == 4


ASKER = """
import asyncio, sys
from pathlib import Path
from gristmill.core.records import Message
from gristmill.core.store import Store, open_store
from gristmill.llm.client import Client
from gristmill.llm.spec import OpenAISpec

async def main(folder, url):
    store = open_store(Path(folder) / "store.db")
    client = Client(store, workspace=Path(folder), run="r")
    model = client.model("writer", OpenAISpec(provider="openai", model="m", base_url=url, concurrency=16), stage="qa")
    async def one(n):
        answer = await model.chat([Message(role="user", content=f"Question {n} on tides")], max_tokens=20)
        sys.stdout.write(answer.key + "\\n"); sys.stdout.flush()
    await asyncio.gather(*(one(n) for n in range(300)))
    await client.close()
    store.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_killed_and_started_again_no_kept_answer_is_paid_for_twice(fake: FakeServer, tmp_path: Path) -> None:
    fake.reset(latency_ms=20)
    kills = 3
    for kill in range(kills + 1):
        command = [sys.executable, "-c", ASKER, str(tmp_path), fake.url]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        if kill < kills:
            for _ in range(60 * (kill + 1)):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == 0
    stats = fake.stats()
    assert len(stats["answered"]) == 300
    assert sum(stats["answered"].values()) - 300 <= (16 + 8) * kills  # in flight, or on their way to the disk
    store = open_store(tmp_path / "store.db")
    assert store.spent("r").calls == 300
    store.close()
    assert json.dumps(stats["statuses"]) == json.dumps({"200": stats["calls"]})


async def test_the_client_is_lean(make_client: Callable[..., Client], model: Callable[..., Model]) -> None:
    """Store, key, slots and counters cost little beside the HTTP exchange itself: a bound far above noise."""
    asked = model(client=make_client(), concurrency=64)
    await asyncio.gather(*(asked.chat(user(f"Warm {n}"), max_tokens=20) for n in range(100)))
    began = time.process_time()
    await asyncio.gather(*(asked.chat(user(f"Question {n} " + "x" * 1000), max_tokens=20) for n in range(1000)))
    assert (time.process_time() - began) / 1000 < 0.001  # seconds of CPU per call; 0.00015 on a quiet machine


def test_specs_of_one_server_share_its_slots(make_client: Callable[..., Client], fake: FakeServer) -> None:
    client = make_client()
    spec = OpenAISpec(provider="openai", model="m", base_url=fake.url)
    assert client.model("writer", spec, stage="a").identity == client.model("judge", spec, stage="b").identity
