"""The store as a file: what it refuses, what it renews, and what a full disk does to it."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gristmill.core.errors import ConfigError, StoreError
from gristmill.core.store import Charge, Spent, open_store
from gristmill.core.store.layout import PAGE

LAYOUT_1 = """
CREATE TABLE responses (
    key TEXT PRIMARY KEY, data BLOB NOT NULL, run TEXT NOT NULL, stage TEXT NOT NULL, role TEXT NOT NULL,
    usage_in INTEGER NOT NULL, usage_out INTEGER NOT NULL, usage_known INTEGER NOT NULL, created REAL NOT NULL);
CREATE INDEX responses_run ON responses (run, usage_in, usage_out);
CREATE TABLE results (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    sha256 TEXT NOT NULL);
PRAGMA user_version = 1;
"""


def digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def make_layout_1(path: Path, rows: int) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(LAYOUT_1)
    for n in range(rows):
        payer = ("first" if n % 2 else "second", "facts", "writer")
        row = (digest(f"a{n}"), b'{"text":"%d"}' % n, *payer, 10, n, 1, time.time())
        connection.execute("INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        value = [b'{"records":[]}', b'{"reject":["r",""]}', b'{"failure":"no"}', b"stages/01-read"][n % 4]
        connection.execute("INSERT INTO results VALUES (?, ?)", (digest(f"r{n}"), value))
    connection.execute("INSERT INTO files VALUES ('/x', 1, 2, 3, 'y')")
    connection.commit()
    connection.close()


async def test_a_store_of_layout_1_opens_with_all_it_held(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    make_layout_1(path, 1000)
    stores = []  # several processes may find it at once: one renews it
    threads = [threading.Thread(target=lambda: stores.append(open_store(path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store, *others = stores
    assert len(others) == 2
    assert store.spent("first") == Spent(500, 5000, sum(range(1, 1000, 2)))
    assert store.spent("second") == Spent(500, 5000, sum(range(0, 1000, 2)))
    assert await store.response(digest("a7")) == {"text": "7"}
    [call] = store.calls([digest("a8")])
    assert (call["run"], call["stage"], call["role"], call["text"]) == ("second", "facts", "writer", "8")
    kept = store.kept([digest(f"r{n}") for n in range(1000)])
    assert [kept[digest(f"r{n}")] for n in range(4)] == ["given", "rejected", "failed", "given"]
    assert len(kept) == 1000 and store.results([digest("r3")]) == {digest("r3"): b"stages/01-read"}
    await store.put_response(digest("new"), {}, Charge("first", "facts", "writer"))
    assert others[0].spent("first").calls == 501
    for store in stores:
        store.close()


def test_a_store_of_a_newer_layout_is_refused(tmp_path: Path) -> None:
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


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"file/s\.db cannot be made"):
        open_store(tmp_path / "file" / "s.db")


def test_hashes_of_files_lie_beside_the_store(tmp_path: Path) -> None:
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"one")
    long_ago = time.time() - 3600
    os.utime(path, (long_ago, long_ago))
    first = open_store(tmp_path / "s.db")
    before = first.file_hash(path)
    first.close()
    path.write_bytes(b"two")
    os.utime(path, (long_ago, long_ago))
    second = open_store(tmp_path / "s.db")
    assert second.file_hash(path) == before, "remembered by another process"
    second.close()


async def test_a_commit_serves_all_who_wait_and_keeps_no_one_alone_waiting(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s.db")
    began = time.perf_counter()
    for n in range(50):
        await store.put_response(f"alone{n}", {}, Charge("r", "s", "w"))
    assert time.perf_counter() - began < 2
    began = time.perf_counter()
    await asyncio.gather(*(store.put_response(f"crowd{n}", {}, Charge("r", "s", "w")) for n in range(20_000)))
    assert time.perf_counter() - began < 5
    assert store.spent("r").calls == 20_050
    store.close()


FILL = """
import asyncio, resource, signal, sys
from pathlib import Path
from gristmill.core.errors import StoreError
from gristmill.core.store import Charge, open_store

async def fill(store, name):
    confirmed, told = [], ""
    async def one(first):
        nonlocal told
        for n in range(first, 10**6, 16):
            try:
                await store.put_response(f"{name}-{n}", {"text": "x" * 1500}, Charge("r", "s", "w"))
            except StoreError as error:
                told = f"{error.message} | {error.hint}"
                return
            confirmed.append(f"{name}-{n}")
    await asyncio.gather(*(one(n) for n in range(16)))
    return confirmed, told

async def main(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    store = open_store(Path(path))
    confirmed, told = await fill(store, "full")
    assert "cannot be written" in told and "Free disk space" in told, told
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await store.put_response("after", {}, Charge("r", "s", "w"))
    assert len(store.calls(confirmed)) == len(confirmed) > 100
    store.close()
    print(*confirmed)

asyncio.run(main(sys.argv[1]))
"""


def test_a_full_disk_reaches_the_writer_loses_nothing_confirmed_and_can_be_freed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FILL, str(tmp_path / "s.db")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    store = open_store(tmp_path / "s.db")
    confirmed = [*done.stdout.split(), "after"]
    assert len(store.calls(confirmed)) == len(confirmed) == store.spent("r").calls
    store.close()


async def test_a_commit_that_fails_is_told_to_everyone_in_it(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s.db")
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute("DROP TABLE notes")
    connection.close()
    put = [store.put_note("space", f"{n}", {}) for n in range(3)]
    ends = await asyncio.gather(*put, store.put_result("k", b"v"), return_exceptions=True)
    assert [type(end) for end in ends] == [StoreError] * 4
    assert store.kept(["k"]) == {}, "all of a batch or nothing of it"
    await store.put_result("k", b"v")
    store.close()


async def test_a_page_that_cannot_be_read_is_an_error_of_the_store_wherever_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = open_store(path)
    keys = [digest(f"{n}") for n in range(2000)]
    for key in keys:
        store.keep_result(key, b"v" * 500)
    await store.flush()
    store.close()
    pages = bytearray(path.read_bytes())
    middle = slice(len(pages) // 2 // PAGE * PAGE, (len(pages) // 2 // PAGE + 40) * PAGE)
    pages[middle] = b"\xff" * 40 * PAGE
    path.write_bytes(pages)
    store = open_store(path)
    with pytest.raises(StoreError, match=r"s\.db cannot be read: database disk image is malformed"):
        store.results(keys)
    store.close()
