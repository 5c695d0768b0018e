"""The store on a server: connections that break, servers that restart, machines that write at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import asyncpg
import pytest
from tests.core.postgres_server import PostgresServer

from gristmill.core.errors import ConfigError, StoreError
from gristmill.core.store import Charge, Spent, Store, open_store

HIDDEN = "not-for-anyones-eyes"


class Wire:
    """Stands between a store and its server, and cuts all connections at a COMMIT: before it arrives, or after it did
    and before its answer comes back. `meanwhile` is done after the cut, before anyone can connect again."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.cut: str | None = None
        self.cuts = 0
        self.meanwhile: Callable[[], None] = lambda: None
        self.port = 0
        self._open: list[asyncio.StreamWriter] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        self._cut_all()
        await asyncio.sleep(0.05)  # the loop lets go of the sockets

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self._open += [writer, far_writer]
        with suppress(ConnectionError):
            await asyncio.gather(self._pass(reader, far_writer, watched=True), self._pass(far_reader, writer))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, watched: bool = False) -> None:
        while data := await source.read(1 << 16):
            if watched and self.cut and b"COMMIT" in data:
                when, self.cut, self.cuts = self.cut, None, self.cuts + 1
                if when == "after":
                    for other in self._open:
                        if other is not sink:
                            other.transport.abort()  # nobody hears the answer
                    sink.write(data)
                    await asyncio.sleep(0.1)
                self._cut_all()
                return self.meanwhile()
            sink.write(data)
            await sink.drain()
        sink.close()

    def _cut_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()


@pytest.fixture
def address(postgres: PostgresServer) -> str:
    return postgres.new_database()


@pytest.fixture
def wire(postgres: PostgresServer) -> Iterator[Wire]:
    wire = Wire(postgres.port)
    yield wire
    wire.close()


async def pay(store: Store, name: str, calls: int) -> None:
    for n in range(calls):
        await store.put_response(f"{name}{n}", {"text": "x" * 500}, Charge("r", "facts", "writer", nano_usd=1))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cut_at_a_commit_charges_once_whatever_became_of_it(
    postgres: PostgresServer, address: str, wire: Wire, when: str
) -> None:
    store = open_store(address.replace(f":{postgres.port}/", f":{wire.port}/"))
    await pay(store, "a", 2)
    for n in range(6):
        wire.cut = when
        await pay(store, f"b{n}", 1)
        await store.charge(Charge("r", "facts", "writer", nano_usd=1, answered=False))
    assert wire.cuts == 6
    assert store.spent("r") == Spent(14, nano_usd=14, unanswered=6)
    assert len(store.calls([f"b{n}0" for n in range(6)])) == 6
    store.close()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("others", [0, 60])
def test_a_crash_at_a_commit_charges_once_even_where_others_get_its_number(
    postgres: PostgresServer, address: str, wire: Wire, when: str, others: int
) -> None:
    """A transaction that never reached the disk leaves its number to those that come after the crash."""
    cut, back = threading.Semaphore(0), threading.Semaphore(0)
    store = open_store(address.replace(f":{postgres.port}/", f":{wire.port}/"))

    def meanwhile() -> None:
        cut.release()
        assert back.acquire(timeout=30)

    async def write() -> None:
        await pay(store, "a", 2)
        wire.meanwhile, wire.cut = meanwhile, when
        await pay(store, "b", 1)
        wire.cut = when
        await store.charge(Charge("r", "facts", "writer", nano_usd=1, answered=False))

    writing = threading.Thread(target=lambda: asyncio.run(write()))
    writing.start()
    for _ in range(2):
        assert cut.acquire(timeout=30)
        postgres.crash()
        postgres.start()
        asyncio.run(use_numbers(address, others))
        back.release()
    writing.join()
    assert store.spent("r") == Spent(4, nano_usd=4, unanswered=1)
    assert len(store.calls(["a0", "a1", "b0"])) == 3
    store.close()


async def use_numbers(address: str, count: int) -> None:
    link = await asyncpg.connect(address)
    for _ in range(count):
        await link.execute("SELECT pg_current_xact_id()")
    await link.close()


async def test_a_writer_that_leaves_takes_its_line_with_it_and_those_of_the_killed_are_swept(address: str) -> None:
    async def lines(sql: str = "SELECT 1") -> int:
        link = await asyncpg.connect(address)
        await link.execute(sql)
        count = await link.fetchval("SELECT count(*) FROM gristmill.writers")
        await link.close()
        return int(count)

    store = open_store(address)
    await pay(store, "a", 3)
    assert await lines() == 1
    store.close()
    assert await lines() == 0
    killed = "INSERT INTO gristmill.writers SELECT gen_random_uuid(), 1, now() - make_interval(hours => h) FROM "
    assert await lines(killed + "generate_series(1, 48, 2) h") == 24
    open_store(address).close()
    assert await lines() == 12


async def test_a_store_of_layout_1_is_renewed(address: str) -> None:
    open_store(address).close()
    link = await asyncpg.connect(address)
    await link.execute("DROP TABLE gristmill.writers; UPDATE gristmill.layout SET version = 1")
    await link.close()
    for name in ("a", "b"):
        store = open_store(address)
        await pay(store, name, 1)
        store.close()


async def test_whatever_goes_wrong_with_a_lookup_is_told_to_all_who_asked(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(address)
    monkeypatch.setattr(asyncpg.Connection, "fetch", _never_thought_of)
    async with asyncio.timeout(5):
        ends = await asyncio.gather(*(store.response(f"k{n}") for n in range(3)), return_exceptions=True)
    assert [type(end) for end in ends] == [StoreError] * 3 and "never thought of" in str(ends[0])
    monkeypatch.undo()
    assert await store.response("k") is None
    store.close()


def _never_thought_of(*_: object) -> None:
    raise ValueError("never thought of")


def test_a_server_that_crashes_and_comes_back_has_all_that_was_confirmed(
    postgres: PostgresServer, address: str
) -> None:
    stores = [open_store(address) for _ in range(2)]
    confirmed: list[str] = []

    async def write() -> None:
        await asyncio.gather(*(one(s, w) for s in range(2) for w in range(8)))

    async def one(s: int, w: int) -> None:
        for n in range(150):
            key = f"{s}-{w}-{n}"
            await stores[s].put_response(key, {"text": "x" * 500}, Charge("r", "facts", "writer", nano_usd=1))
            confirmed.append(key)
            assert await stores[1 - s].response(key), "another machine sees it at once"

    writing = threading.Thread(target=lambda: asyncio.run(write()))
    writing.start()
    for crash in range(2):
        while len(confirmed) < 300 * (crash + 1):
            time.sleep(0.005)
        postgres.crash()
        at_the_crash = len(confirmed)
        postgres.start()
        assert at_the_crash < 2400
    writing.join()
    assert len(confirmed) == 2400
    assert [call["key"] for call in stores[1].calls(confirmed)] == confirmed
    assert stores[0].spent("r") == Spent(2400, nano_usd=2400)
    for store in stores:
        store.close()


async def test_machines_that_write_the_same_keys_at_once_wait_for_each_other(address: str) -> None:
    with_threads: list[Store] = await asyncio.gather(*(asyncio.to_thread(open_store, address) for _ in range(4)))
    for turn in range(10):
        keys = [f"{turn}-{n}" for n in range(60)]
        puts = [
            store.put_response(key, {"by": number}, Charge("r", f"s{number % 2}", "w"))
            for number, store in enumerate(with_threads)
            for key in (keys if number % 2 else reversed(keys))
        ]
        results = [store.put_result(key, b"v") for store in with_threads for key in keys]
        await asyncio.gather(*puts, *results)
    first, *others = with_threads
    assert first.spent("r").calls == 4 * 600
    assert all(other.calls(["3-7"]) == first.calls(["3-7"]) for other in others)
    for store in with_threads:
        store.close()


def test_a_server_that_is_not_there_is_a_mistake_and_its_password_stays_hidden() -> None:
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"127\.0\.0\.1:9/data, cannot be reached") as caught:
        open_store(f"postgresql://someone:{HIDDEN}@127.0.0.1:9/data")
    assert HIDDEN not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"
    assert "someone" not in str(caught.value)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("broken", ["postgresql://u:{}@127.0.0.1:port/x", "postgresql://u:{}@[::1/x"])
def test_an_address_that_is_none_is_refused_without_quoting_it(broken: str) -> None:
    with pytest.raises(ConfigError, match="cannot be reached") as caught:
        open_store(broken.format(HIDDEN))
    assert HIDDEN not in f"{caught.value} {caught.value.hint} {caught.value.__cause__}"


def test_a_database_that_is_not_there_is_named_by_the_server(postgres: PostgresServer) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        open_store(postgres.url("nowhere"))


def test_a_layout_of_a_newer_version_is_refused(address: str) -> None:
    open_store(address).close()

    async def renew() -> None:
        link = await asyncpg.connect(address)
        await link.execute("UPDATE gristmill.layout SET version = 99")
        await link.close()

    asyncio.run(renew())
    with pytest.raises(ConfigError, match="newer version"):
        open_store(address)
