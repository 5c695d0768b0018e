"""What has been paid for or computed once: answers of models, results of steps, hashes of files, by content key.

One SQLite file (WAL, synchronous FULL) that several processes may share. A process writes through one thread: it takes
one write, drains what else is waiting, commits once and only then tells every writer that it is done, so durability
costs one fsync per burst and not one per write. Reads go beside it on connections of their own and never wait.

A database server can stand in for this file by offering the same methods; nothing outside this module knows SQL.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import orjson

from gristmill.core.errors import ConfigError, StoreError
from gristmill.core.files import sha256_file

VERSION = 1
BATCH = 500  # writes per commit: past this the fsync is no longer what costs
READ_CHUNK = 20_000  # keys per query
BUSY_SECONDS = 60
SETTLED_NS = 2_000_000_000  # a file younger than this may change again within one tick of its clock

_TABLES = """
CREATE TABLE IF NOT EXISTS responses (
    key TEXT PRIMARY KEY, data BLOB NOT NULL, run TEXT NOT NULL, stage TEXT NOT NULL, role TEXT NOT NULL,
    usage_in INTEGER NOT NULL, usage_out INTEGER NOT NULL, usage_known INTEGER NOT NULL, created REAL NOT NULL);
CREATE INDEX IF NOT EXISTS responses_run ON responses (run, usage_in, usage_out);
CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    sha256 TEXT NOT NULL);
"""
_PUT_RESPONSE = "INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_RESULT = "INSERT OR REPLACE INTO results VALUES (?, ?)"
_PUT_FILE = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)"

_CLOSED = "the store is closed"
_DISK_HINT = "Free disk space or check the permissions of its folder, then run again: what was confirmed is kept."


@dataclass(frozen=True)
class Spent:
    """What a run has paid for so far, over all its attempts."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0


@dataclass(frozen=True)
class _Write:
    sql: str
    values: tuple[Any, ...]
    waiting: asyncio.Future[None] | Future[None]


class Store:
    """Open with `Store.open`. Every `put_*` has reached the disk when it returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Write | None] = SimpleQueue()
        self._closed = False
        self._connection = _open(path)
        self._thread = threading.Thread(target=self._write_forever, name="store-writer", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path) -> Store:
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path)

    def close(self) -> None:
        """Everything handed in before is durable afterwards."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        for reader in self._readers:
            reader.close()
        self._connection.close()

    # Responses: what models answered.

    async def response(self, key: str) -> dict[str, Any] | None:
        """A stored answer. A lookup of some microseconds: it is not worth a thread."""
        row = self._read("SELECT data FROM responses WHERE key = ?", (key,)).fetchone()
        return None if row is None else orjson.loads(row[0])

    async def put_response(
        self,
        key: str,
        data: dict[str, Any],
        *,
        run: str,
        stage: str,
        role: str,
        usage_in: int,
        usage_out: int,
        usage_known: bool = True,
    ) -> None:
        """Keep an answer. The first one under a key stays: records already rest on it."""
        blob = orjson.dumps(data)
        await self._put(
            _PUT_RESPONSE, (key, blob, run, stage, role, usage_in, usage_out, int(usage_known), time.time())
        )

    def calls(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """The stored answers under some keys, in that order, with who asked for them; unknown keys are left out."""
        rows = self._rows("key, data, run, stage, role", "responses", keys)
        found = {
            key: {"key": key, "run": run, "stage": stage, "role": role, **orjson.loads(data)}
            for key, data, run, stage, role in rows
        }
        return [found[key] for key in keys if key in found]

    def spent(self, run: str) -> Spent:
        row = self._read(
            "SELECT count(*), total(usage_in), total(usage_out) FROM responses WHERE run = ?", (run,)
        ).fetchone()
        return Spent(int(row[0]), int(row[1]), int(row[2]))

    # Results: what steps and passes made.

    def results(self, keys: Sequence[str]) -> dict[str, bytes]:
        """What is kept under any of these keys."""
        return dict(self._rows("key, value", "results", keys))

    async def put_result(self, key: str, value: bytes) -> None:
        await self._put(_PUT_RESULT, (key, value))

    def put_result_sync(self, key: str, value: bytes) -> None:
        """`put_result` for a pass, which runs outside the event loop."""
        waiting: Future[None] = Future()
        self._enqueue(_Write(_PUT_RESULT, (key, value), waiting))
        waiting.result()

    # Files: hashing a large file once.

    def file_hash(self, path: Path) -> str:
        """sha256 of a file, remembered under its path, size, modification time and inode."""
        place = str(path.resolve())
        before = _fingerprint(path)
        if before is not None:
            sql = "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?"
            row = self._read(sql, (place, *before)).fetchone()
            if row is not None:
                return str(row[0])
        digest = sha256_file(path)
        if before is not None and before == _fingerprint(path) and time.time_ns() - before[1] > SETTLED_NS:
            # Not waited for: losing it costs one hashing.
            self._enqueue(_Write(_PUT_FILE, (place, *before, digest), Future()))
        return digest

    # The reading side.

    def _read(self, sql: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        reader: sqlite3.Connection | None = getattr(self._local, "reader", None)
        try:
            if reader is None:
                reader = self._new_reader()
            return reader.execute(sql, values)
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.path} cannot be read: {error}", _DISK_HINT) from error

    def _new_reader(self) -> sqlite3.Connection:
        with self._lock:
            if self._closed:
                raise StoreError(_CLOSED)
            reader = _connect(self.path)
            reader.execute("PRAGMA query_only = 1")
            self._readers.append(reader)
        self._local.reader = reader
        return reader

    def _rows(self, columns: str, table: str, keys: Sequence[str]) -> Iterable[tuple[Any, ...]]:
        sql = f"SELECT {columns} FROM {table} WHERE key IN (SELECT value FROM json_each(?))"  # noqa: S608  (our own names)
        for start in range(0, len(keys), READ_CHUNK):
            yield from self._read(sql, (orjson.dumps(list(keys[start : start + READ_CHUNK])).decode(),))

    # The writing side.

    async def _put(self, sql: str, values: tuple[Any, ...]) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._enqueue(_Write(sql, values, waiting))
        await waiting

    def _enqueue(self, write: _Write) -> None:
        with self._lock:
            if self._closed:
                raise StoreError(_CLOSED)
            self._queue.put(write)

    def _write_forever(self) -> None:
        going = True
        while going:
            batch: list[_Write] = []
            item = self._queue.get()
            with suppress(Empty):
                while item is not None:
                    batch.append(item)
                    if len(batch) == BATCH:
                        break
                    item = self._queue.get_nowait()
            going = item is not None
            if batch:
                _tell(batch, self._commit(batch))

    def _commit(self, batch: list[_Write]) -> StoreError | None:
        """One transaction; the error that every writer in it must hear, if it failed."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                self._connection.execute(write.sql, write.values)
            self._connection.execute("COMMIT")
        except (sqlite3.Error, OverflowError, ValueError) as error:
            with suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            return StoreError(f"the store {self.path} cannot be written: {error}", _DISK_HINT)
        return None


def _tell(batch: list[_Write], error: StoreError | None) -> None:
    """Wake every writer of a batch: one call into each event loop, however many wait there."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for write in batch:
        if isinstance(write.waiting, Future):
            _settle(write.waiting, error)
        else:
            loops.setdefault(write.waiting.get_loop(), []).append(write.waiting)
    for loop, futures in loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle_all, futures, error)


def _settle_all(futures: list[asyncio.Future[None]], error: StoreError | None) -> None:
    for future in futures:
        _settle(future, error)


def _settle(future: asyncio.Future[None] | Future[None], error: StoreError | None) -> None:
    if future.done():  # its task was cancelled meanwhile
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    """Size, modification time in ns, inode; None where there is no such file."""
    try:
        stat = os.stat(path)  # noqa: PTH116  (one call for all three)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _open(path: Path) -> sqlite3.Connection:
    """The writing connection; makes the tables in a new file and refuses one that a newer version made."""
    try:
        connection = _connect(path)
        _use_wal(connection)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
    except sqlite3.Error as error:
        raise ConfigError(
            f"the store {path} cannot be opened: {error}",
            "Check the path and its permissions, or choose another workspace.",
        ) from error
    if version > VERSION:
        connection.close()
        raise ConfigError(
            f"the store {path} was made by a newer version of gristmill (layout {version}, this one knows {VERSION})",
            "Update gristmill, or choose another workspace.",
        )
    return connection


def _use_wal(connection: sqlite3.Connection) -> None:
    """Two processes that open a new file at once collide here, and SQLite does not wait by itself for this change."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
