"""The store keeps what it said it kept: across kills, processes, threads and full disks."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.core.errors import ConfigError, GristmillError, InputError
from gristmill.core.store import Charge, Spent, Store, open_store


@pytest.fixture
def store(tmp_path: Path):
    store = open_store(tmp_path / "deep" / "store.db")
    yield store
    store.close()


async def put(store: Store, key: str, *, run: str = "r", text: str = "x", usage: tuple[int, int] = (3, 5)) -> None:
    await store.put_response(key, {"text": text}, Charge(run, "qa", "writer", tokens_in=usage[0], tokens_out=usage[1]))


async def test_a_response_comes_back_and_the_first_one_stays(store: Store) -> None:
    assert await store.response("k") is None
    await put(store, "k", text="first")
    await put(store, "k", text="second")
    assert await store.response("k") == {"text": "first"}


async def test_spent_adds_up_one_run(store: Store) -> None:
    await asyncio.gather(*(put(store, f"a{n}", run="a") for n in range(700)), put(store, "b", run="b", usage=(1, 2)))
    assert store.spent("a") == Spent(700, 2100, 3500)
    assert store.spent("b") == Spent(1, 1, 2)
    assert store.spent("none") == Spent()


async def test_calls_come_in_the_order_asked_for_and_unknown_ones_are_left_out(store: Store) -> None:
    for key in "abc":
        await put(store, key, text=key)
    found = store.calls(["c", "nowhere", "a"])
    assert [(c["key"], c["text"], c["stage"], c["role"]) for c in found] == [
        ("c", "c", "qa", "writer"),
        ("a", "a", "qa", "writer"),
    ]


async def test_everything_is_there_after_closing_and_opening_again(tmp_path: Path) -> None:
    first = open_store(tmp_path / "s.db")
    await first.put_result("k", b"\0value")
    first.close()
    first.close()
    second = open_store(tmp_path / "s.db")
    assert second.results(["k", "l"]) == {"k": b"\0value"}
    second.close()


@settings(max_examples=30, deadline=None)
@given(writes=st.lists(st.tuples(st.text(min_size=1, max_size=6, alphabet="abcé☃'\""), st.binary(max_size=40))))
def test_results_behave_like_a_dictionary(tmp_path_factory: pytest.TempPathFactory, writes: list) -> None:
    store = open_store(tmp_path_factory.mktemp("store") / "s.db")
    for key, value in writes:
        store.keep_result(key, value)
    assert store.results([key for key, _ in writes] + ["other"]) == dict(writes)
    store.close()


async def test_many_results_are_looked_up_at_once(store: Store) -> None:
    await asyncio.gather(*(store.put_result(f"{n:064d}", b"v") for n in range(20_000)))
    began = time.process_time()
    assert len(store.results([f"{n:064d}" for n in range(0, 100_000)])) == 20_000
    assert time.process_time() - began < 2


def test_threads_of_passes_may_write_and_read(store: Store) -> None:
    def work(name: int) -> None:
        for n in range(50):
            store.keep_result(f"{name}-{n}", b"%d" % n)
            assert store.results([f"{name}-{n}"])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.results([f"{t}-{n}" for t in range(4) for n in range(50)])) == 200


async def test_a_cancelled_writer_stops_nobody_else(store: Store) -> None:
    gone = asyncio.create_task(put(store, "gone"))
    await asyncio.sleep(0)
    gone.cancel()
    await put(store, "stays")
    assert await store.response("stays")


async def test_what_cannot_be_kept_is_an_error_for_the_one_who_waits(store: Store) -> None:
    with pytest.raises(TypeError):
        await put(store, "k", text=object())  # type: ignore[arg-type]
    with pytest.raises(GristmillError, match="cannot be written"):
        await store.put_result("k", object())  # type: ignore[arg-type]
    await put(store, "after")
    assert await store.response("after")


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s.db")
    store.close()
    with pytest.raises(GristmillError, match="closed"):
        await put(store, "k")
    with pytest.raises(GristmillError, match="closed"):
        store.results(["k"])


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path / "s.db").close()
    with sqlite3.connect(tmp_path / "s.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(ConfigError, match="newer version") as caught:
        open_store(tmp_path / "s.db")
    assert "Update gristmill" in caught.value.hint


@pytest.mark.parametrize("content", [b"this is no database at all" * 200, b"SQLite format 3\0" + b"\xff" * 4000])
def test_a_file_that_is_no_store_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.db").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be opened"):
        open_store(tmp_path / "s.db")


def test_a_file_is_hashed_once_until_it_changes(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"one")
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    first = store.file_hash(path)
    store.keep_result("barrier", b"")  # the hash is written before this
    path.write_bytes(b"two")
    assert store.file_hash(path) != first
    os.utime(path, (long_ago, long_ago))  # same size, time and inode: taken for the same file, without reading it
    assert store.file_hash(path) == first
    with pytest.raises(InputError, match="cannot read"):
        store.file_hash(tmp_path / "nothing")


def test_a_file_just_written_is_not_remembered(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "document.txt"
    path.write_bytes(b"one")
    stat = path.stat()
    first = store.file_hash(path)
    store.keep_result("barrier", b"")
    path.write_bytes(b"two")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert store.file_hash(path) != first


WRITER = """
import asyncio, resource, signal, sys
from pathlib import Path
from gristmill.core.store import Charge, open_store
from gristmill.core.errors import GristmillError

async def main(path, name, count):
    store = open_store(Path(path))
    async def one(first):
        for n in range(first, count, 16):
            await store.put_response(f"{name}-{n}", {"text": "x" * 1500}, Charge(name, "s", "w"))
            sys.stdout.write(f"{name}-{n}\\n"); sys.stdout.flush()
    try:
        await asyncio.gather(*(one(n) for n in range(16)))
    except GristmillError as error:
        sys.exit(f"{error.message} | {error.hint}")
    store.close()

if len(sys.argv) > 4:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def writer(path: Path, name: str, count: int, *more: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(path), name, str(count), *map(str, more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_any_moment_every_confirmed_write_is_there(tmp_path: Path) -> None:
    for attempt in range(4):
        process = writer(tmp_path / "s.db", f"try{attempt}", 10**9)
        assert process.stdout is not None
        confirmed = [process.stdout.readline().strip() for _ in range(200 + 150 * attempt)]
        process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        confirmed += rest.splitlines() if rest.endswith("\n") else rest.splitlines()[:-1]
        store = open_store(tmp_path / "s.db")
        assert [c["key"] for c in store.calls(confirmed)] == confirmed
        assert store.spent(f"try{attempt}").calls >= len(confirmed)
        store.close()


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    both = [writer(tmp_path / "s.db", name, 1500) for name in "ab"]
    for process in both:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    store = open_store(tmp_path / "s.db")
    assert store.spent("a").calls == store.spent("b").calls == 1500
    store.close()


def test_a_full_disk_reaches_the_writer_and_loses_nothing_confirmed(tmp_path: Path) -> None:
    process = writer(tmp_path / "s.db", "full", 10**6, 1 << 20)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot be written" in errors and "Free disk space" in errors
    store = open_store(tmp_path / "s.db")
    confirmed = out.split()
    assert confirmed and len(store.calls(confirmed)) == len(confirmed)
    store.close()
