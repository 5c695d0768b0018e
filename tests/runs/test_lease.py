"""One run on two machines that share a store: one holds it, whatever becomes of the machine, the server or the line."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from tests.core.postgres_server import PostgresServer, postgres_server
from tests.fakes.fixtures import FakeServer
from tests.flows.attempt import answered, attempt, repeated
from tests.runs.project import PLACES, Project

from gristmill.core.errors import ConfigError, StoreError
from gristmill.core.store import Holder, Store, open_store

RUN, RIVAL = "little-run", Holder(4711, "elsewhere", "noon")
HELD = "SELECT pid, (classid::bigint << 32) | objid::bigint FROM pg_locks WHERE locktype = 'advisory' AND granted"
NOTE = "UPDATE gristmill.notes SET data = $1 WHERE space = 'holders'"


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server(Path(tempfile.mkdtemp(prefix="gristmill-pg-"))) as server:
        yield server


@pytest.fixture
def address(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    address = postgres.new_database()
    monkeypatch.setenv("GRISTMILL_STORE", address)
    return address


@pytest.fixture
def stores(address: str) -> Iterator[tuple[Store, Store]]:
    """Those of two machines."""
    one, two = open_store(address), open_store(address)
    yield one, two
    one.close()
    two.close()


def machine(folder: Path, fake: FakeServer) -> Project:
    project = Project(folder)
    project.add(*PLACES)
    project.recipe(fake.url)
    return project


def write(store: Store) -> None:
    asyncio.run(store.put_note("space", "name", {"x": 1}))


def refused(store: Store) -> None:
    with pytest.raises(ConfigError, match=f"running already .process {Holder.this().process} on"):
        store.claim(RUN, RIVAL).__enter__()


async def break_the_line(address: str) -> None:
    """Of the one who holds a run."""
    link = await asyncpg.connect(address)
    await link.execute(f"SELECT pg_terminate_backend(pid) FROM ({HELD}) AS held")
    await link.close()


def test_a_run_that_another_machine_runs_is_refused_and_taken_over_once_it_has_ended(
    tmp_path: Path, fake: FakeServer, address: str
) -> None:
    one, two = machine(tmp_path / "one", fake), machine(tmp_path / "two", fake)
    fake.fresh(latency_ms=1200)
    with attempt(one) as first:
        first.wait_until(lambda: fake.stats()["calls"] >= 2)
        said = two.go(code=2)
        assert "is running already" in said["message"] and str(first.process.pid) in said["message"]
        assert "postgres@" not in json.dumps(said)
        code, out, errors = first.end()
    assert code == 0, errors
    asked = fake.stats()["calls"]
    assert repeated(fake) == 0
    second = two.go()
    assert second["state"] == "finished" and second["run"] == json.loads(out)["run"]
    assert fake.stats()["calls"] == asked == second["spent"]["calls"]


def test_a_killed_machine_holds_nothing(tmp_path: Path, fake: FakeServer, address: str) -> None:
    one, two = machine(tmp_path / "one", fake), machine(tmp_path / "two", fake)
    fake.fresh(latency_ms=300)
    with attempt(one) as first:
        first.wait_until(lambda: answered(fake) >= 4)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
    fake.reset(latency_ms=0)
    assert two.go()["state"] == "finished"


def test_a_run_taken_while_the_line_was_broken_stops_with_who_has_it(
    tmp_path: Path, fake: FakeServer, address: str
) -> None:
    one = machine(tmp_path / "one", fake)
    fake.fresh(latency_ms=400)
    with attempt(one) as first, asyncio.Runner() as loop:
        first.wait_until(lambda: answered(fake) >= 2)
        rival = loop.run(take_by_force(address))
        code, out, _ = first.end()
        loop.run(rival.close())
    said = json.loads(out)
    assert code == 1 and said["state"] == "failed"
    assert "was taken by process 4711 on elsewhere" in said["error"] and "What was confirmed is kept" in said["hint"]


async def take_by_force(address: str) -> asyncpg.Connection[Any]:
    """Stand in the queue for the lock, then break the holder's line."""
    rival, other = await asyncpg.connect(address), await asyncpg.connect(address)
    [(pid, lock)] = await other.fetch(HELD)
    waiting = asyncio.create_task(rival.execute("SELECT pg_advisory_lock($1)", lock))
    await asyncio.sleep(0.1)
    await other.execute("SELECT pg_terminate_backend($1)", pid)
    await waiting
    await rival.execute(NOTE, json.dumps({"process": 4711, "host": "elsewhere", "since": "noon"}).encode())
    await other.close()
    return rival


def test_a_claim_is_one_store_s_at_a_time(stores: tuple[Store, Store]) -> None:
    one, two = stores
    with (
        one.claim(RUN, Holder.this()),
        two.claim("another", RIVAL),
        pytest.raises(ConfigError, match="running already"),
    ):
        two.claim(RUN, RIVAL).__enter__()
    with two.claim(RUN, RIVAL):
        assert [note["host"] for note in one.notes("holders").values()] == ["elsewhere"]
    assert one.notes("holders") == {}


def break_line(address: str, _server: PostgresServer) -> Coroutine[Any, Any, None] | None:
    return break_the_line(address)


def restart(_address: str, server: PostgresServer) -> None:
    server.crash()
    server.start()


@pytest.mark.parametrize("disturb", [break_line, restart])
def test_after_a_break_a_run_is_held_again(
    stores: tuple[Store, Store], address: str, postgres: PostgresServer, disturb: Any
) -> None:
    one, two = stores
    with one.claim(RUN, Holder.this()):
        if (work := disturb(address, postgres)) is not None:
            asyncio.run(work)
        write(one)
        refused(two)
    with two.claim(RUN, RIVAL):
        pass


def test_who_lost_a_run_writes_nothing_more_even_when_it_is_free_again(
    stores: tuple[Store, Store], address: str
) -> None:
    one, two = stores
    with one.claim(RUN, Holder.this()):
        asyncio.run(break_the_line(address))
        with two.claim(RUN, RIVAL), pytest.raises(StoreError, match="was taken by process 4711 on elsewhere"):
            write(one)
        with pytest.raises(StoreError, match="was taken"):
            write(one)
    write(one)  # it holds nothing any more
