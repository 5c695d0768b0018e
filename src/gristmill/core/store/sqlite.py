"""The store as one SQLite file (WAL, synchronous FULL) that several processes of one machine may share.

Rows go in and out by the batch, in one statement: the database unpacks them from a few long values, outside of
Python's lock, so that writing hardly disturbs the thread that asks the models. Reads go beside the writer on
connections of their own and never wait for it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.errors import ConfigError, StoreError
from gristmill.core.store.base import CLOSED, Commit, Store
from gristmill.core.store.layout import READER_CACHE_KIB, connect, open_file, packed
from gristmill.core.store.types import STATUSES, Hold, Payer, Spent, Status, by_payer

READ_CHUNK = 50_000  # keys per query
_DISK_HINT = "Free disk space or check the permissions of its folder, then run again: what was confirmed is kept."

# ?1: the keys, 32 bytes each. json_each counts the rows: `j.key` is a row's number, `j.value` says where its value
# lies in ?2: the offset, shifted by 32 bits, and the length. One byte stands before: part of an empty value is NULL.
_PUT_RESPONSES = """INSERT OR IGNORE INTO responses (key, payer, data)
    SELECT substr(?1, 32 * j.key + 1, 32), ?4, substr(?2, (j.value >> 32) + 2, j.value & 4294967295)
    FROM json_each(?3) j"""
_PUT_RESULTS = """INSERT INTO results (key, status, value)
    SELECT substr(?1, 32 * j.key + 1, 32), ?4, substr(?2, (j.value >> 32) + 2, j.value & 4294967295)
    FROM json_each(?3) j"""
_DROP_RESULTS = "DELETE FROM results WHERE key IN (SELECT substr(?1, 32 * j.key + 1, 32) FROM json_each(?2) j)"
_CHARGE = """INSERT INTO ledger (run, stage, role, calls, tokens_in, tokens_out, tokens_cached, tokens_reasoning,
        nano_usd, unanswered) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET calls = calls + excluded.calls, tokens_in = tokens_in + excluded.tokens_in,
        tokens_out = tokens_out + excluded.tokens_out, tokens_cached = tokens_cached + excluded.tokens_cached,
        tokens_reasoning = tokens_reasoning + excluded.tokens_reasoning, nano_usd = nano_usd + excluded.nano_usd,
        unanswered = unanswered + excluded.unanswered
    RETURNING id"""
_LEDGER = """SELECT stage, role, calls, tokens_in, tokens_out, tokens_cached, tokens_reasoning, nano_usd, unanswered
    FROM ledger WHERE run = ? ORDER BY id"""
_CALLS = "responses t ON t.key = substr(?1, 32 * j.key + 1, 32) CROSS JOIN ledger l ON l.id = t.payer"
_RESULTS = "results t ON t.key = substr(?1, 32 * j.key + 1, 32)"


class SqliteStore(Store):
    def __init__(self, path: Path, *, hashes: Path | None) -> None:
        super().__init__(hashes)
        self.path = path
        self.place = str(path)
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the store {path} cannot be made: {error.strerror}", "Choose another workspace."
            ) from error
        self._connection = open_file(path)
        self._thread.start()

    async def response(self, key: str) -> dict[str, Any] | None:
        """A lookup of some microseconds: it is not worth a thread."""
        row = next(self._read("SELECT data FROM responses WHERE key = ?", (packed(key),)), None)
        return None if row is None else orjson.loads(row[0])

    def calls(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        rows = self._rows("t.data, l.run, l.stage, l.role", _CALLS, keys)
        return [{"key": k, "run": run, "stage": s, "role": r, **orjson.loads(data)} for k, data, run, s, r in rows]

    def spent_by_stage(self, run: str) -> dict[tuple[str, str], Spent]:
        return {(stage, role): Spent(*sums) for stage, role, *sums in self._read(_LEDGER, (run,))}

    def held(self, run: str) -> Hold:
        row = next(self._read("SELECT calls, tokens, nano_usd FROM holds WHERE run = ?", (run,)), None)
        return Hold(*row) if row else Hold()

    def kept(self, keys: Sequence[str]) -> dict[str, Status]:
        """In the order of the index, chunk by chunk: neighbours lie on the same page."""
        chunks = (sorted(keys[start : start + READ_CHUNK]) for start in range(0, len(keys), READ_CHUNK))
        return {key: STATUSES[status] for chunk in chunks for key, status in self._rows("t.status", _RESULTS, chunk)}

    def results(self, keys: Sequence[str]) -> dict[str, bytes]:
        return dict(self._rows("t.value", _RESULTS, keys))

    def notes(self, space: str) -> dict[str, dict[str, Any]]:
        now = time.time()
        rows = self._read("SELECT name, data, at FROM notes WHERE space = ?", (space,))
        return {name: {**orjson.loads(data), "at": at, "age": now - at} for name, data, at in rows}

    # The reading side.

    def _read(self, sql: str, values: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        """The rows found, read as they are taken: any of them may lie on a page that cannot be read."""
        reader: sqlite3.Connection | None = getattr(self._local, "reader", None)
        try:
            if reader is None:
                reader = self._new_reader()
            yield from reader.execute(sql, values)
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.path} cannot be read: {error}", _DISK_HINT) from error

    def _new_reader(self) -> sqlite3.Connection:
        with self._gathering:
            if self._closed:
                raise StoreError(CLOSED)
            reader = connect(self.path)
            reader.execute("PRAGMA query_only = 1")
            reader.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
            self._readers.append(reader)
        self._local.reader = reader
        return reader

    def _rows(self, columns: str, joined: str, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """What is found, with its key, in the order of the keys."""
        sql = f"SELECT j.key, {columns} FROM json_each(?2) j CROSS JOIN {joined}"  # noqa: S608  (our own names)
        for start in range(0, len(keys), READ_CHUNK):
            chunk = keys[start : start + READ_CHUNK]
            for number, *values in self._read(sql, (_packed_all(chunk), _numbers([0] * len(chunk)))):
                yield chunk[number], *values

    # The writing side.

    def _commit(self, commit: Commit) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._write(commit)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise StoreError(f"the store {self.path} cannot be written: {error}", _DISK_HINT) from error
        finally:
            if self._connection.in_transaction:
                with suppress(sqlite3.Error):
                    self._connection.execute("ROLLBACK")

    def _write(self, commit: Commit) -> None:
        execute = self._connection.execute
        payers: dict[Payer, int] = {}
        for payer, sums in by_payer(commit.charges).items():
            payers[payer] = execute(_CHARGE, (*payer, *sums)).fetchone()[0]
        for payer, number in payers.items():
            rows = [(key, data) for key, data, charge in commit.responses if charge[:3] == payer]
            self._insert(_PUT_RESPONSES, rows, number)
        if commit.results:
            execute(_DROP_RESULTS, (_packed_all(commit.results), _numbers([0] * len(commit.results))))
        for number in range(len(STATUSES)):
            rows = [(key, value) for key, (status, value) in commit.results.items() if status == number]
            self._insert(_PUT_RESULTS, rows, number)
        for run, hold in commit.holds.items():
            execute("DELETE FROM holds WHERE run = ?", (run,))
            if hold != Hold():
                execute("INSERT INTO holds VALUES (?, ?, ?, ?)", (run, hold.calls, hold.tokens, hold.nano_usd))
        for (space, name), data in commit.notes.items():
            execute("DELETE FROM notes WHERE space = ? AND name = ?", (space, name))
            if data is not None:
                execute("INSERT INTO notes VALUES (?, ?, ?, ?)", (space, name, data, time.time()))

    def _insert(self, sql: str, rows: list[tuple[str, bytes]], number: int) -> None:
        """Many rows in one step of the database."""
        if not rows:
            return
        places, offset = [], 0
        for _, value in rows:
            places.append(offset << 32 | len(value))
            offset += len(value)
        keys = _packed_all(key for key, _ in rows)
        self._connection.execute(sql, (keys, b"\0" + b"".join(value for _, value in rows), _numbers(places), number))

    def _disconnect(self) -> None:
        for reader in self._readers:
            reader.close()
        self._connection.close()


def _packed_all(keys: Iterable[str]) -> bytes:
    """All keys together; digests, which they nearly always are, in one go."""
    keys = list(keys)
    if set(map(len, keys)) == {64}:
        with suppress(ValueError):
            together = bytes.fromhex("".join(keys))
            if len(together) == 32 * len(keys):
                return together
    return b"".join(map(packed, keys))


def _numbers(values: list[int]) -> str:
    return orjson.dumps(values).decode()
