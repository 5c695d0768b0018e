"""The store on a server: connections that break, servers that restart, machines that write at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import asyncpg
import pytest
from tests.core.postgres_server import PostgresServer

from gristmill.core.errors import ConfigError
from gristmill.core.store import Charge, Spent, Store, open_store

HIDDEN = "not-for-anyones-eyes"


class Wire:
    """Stands between a store and its server, and cuts all connections at a COMMIT: before it arrives, or after it did
    and before its answer comes back."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.cut: str | None = None
        self.cuts = 0
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
                return self._cut_all()
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
