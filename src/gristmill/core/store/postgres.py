"""The store on a PostgreSQL server, which many machines share.

The same commits as for a file, each one transaction. When the connection breaks while a transaction is being
committed, nobody knows what became of it; so each that charges also writes its own number, one line per writer, and is
done again only where that number is not there: nothing confirmed is lost and nothing is charged twice. (The server's
numbers of transactions would not do: after a crash it gives those that never reached its disk to others.) Lookups of
answers gather too: while one query is under way, the keys of the next one come together.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from gristmill.core.errors import ConfigError, StageFailure, StoreError, boundary
from gristmill.core.store.base import CLOSED, Commit, Store
from gristmill.core.store.claims import Claims
from gristmill.core.store.layout import packed
from gristmill.core.store.link import Link, LoopThread, Work, named
from gristmill.core.store.types import STATUSES, Hold, Holder, Payer, Spent, Status, by_payer

VERSION = 2
READ_CHUNK = 20_000  # keys per query
BEAT = 5.0  # seconds after which a broken connection is noticed where nothing is written: a run is held by it
FORGOTTEN = 86_400.0  # seconds after which the line of a writer that was killed is swept away

_LAYOUT = """
CREATE TABLE gristmill.ledger (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run text NOT NULL, stage text NOT NULL, role text NOT NULL,
    calls bigint NOT NULL, tokens_in bigint NOT NULL, tokens_out bigint NOT NULL, tokens_cached bigint NOT NULL,
    tokens_reasoning bigint NOT NULL, nano_usd bigint NOT NULL, unanswered bigint NOT NULL,
    UNIQUE (run, stage, role));
CREATE TABLE gristmill.responses (key bytea PRIMARY KEY, payer bigint NOT NULL, data bytea NOT NULL);
CREATE TABLE gristmill.results (
    key bytea, status smallint NOT NULL, value bytea NOT NULL, PRIMARY KEY (key) INCLUDE (status));
CREATE TABLE gristmill.holds (
    run text PRIMARY KEY, calls bigint NOT NULL, tokens bigint NOT NULL, nano_usd bigint NOT NULL);
CREATE TABLE gristmill.notes (
    space text, name text, data bytea NOT NULL, at timestamptz NOT NULL, PRIMARY KEY (space, name));
"""
_FROM_1 = "CREATE TABLE gristmill.writers (id uuid PRIMARY KEY, number bigint NOT NULL, at timestamptz NOT NULL)"
# Waits for an attempt that the server still works on; gives no row where one was committed.
_BEGIN = """INSERT INTO gristmill.writers AS w VALUES ($1, $2, clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET number = excluded.number, at = excluded.at WHERE w.number < excluded.number
    RETURNING number"""
_LEAVE = "DELETE FROM gristmill.writers WHERE id = $1"
_SWEEP = "DELETE FROM gristmill.writers WHERE at < clock_timestamp() - make_interval(secs => $1)"
_CHARGE = """INSERT INTO gristmill.ledger AS l (run, stage, role, calls, tokens_in, tokens_out, tokens_cached,
        tokens_reasoning, nano_usd, unanswered) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
    ON CONFLICT (run, stage, role) DO UPDATE SET calls = l.calls + excluded.calls,
        tokens_in = l.tokens_in + excluded.tokens_in, tokens_out = l.tokens_out + excluded.tokens_out,
        tokens_cached = l.tokens_cached + excluded.tokens_cached,
        tokens_reasoning = l.tokens_reasoning + excluded.tokens_reasoning,
        nano_usd = l.nano_usd + excluded.nano_usd, unanswered = l.unanswered + excluded.unanswered
    RETURNING id"""
_PUT_RESPONSES = """INSERT INTO gristmill.responses SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::bytea[])
    ON CONFLICT DO NOTHING"""
_PUT_RESULTS = """INSERT INTO gristmill.results SELECT * FROM unnest($1::bytea[], $2::smallint[], $3::bytea[])
    ON CONFLICT (key) DO UPDATE SET status = excluded.status, value = excluded.value"""
_PUT_HOLD = """INSERT INTO gristmill.holds VALUES ($1, $2, $3, $4)
    ON CONFLICT (run) DO UPDATE SET calls = excluded.calls, tokens = excluded.tokens, nano_usd = excluded.nano_usd"""
_PUT_NOTE = """INSERT INTO gristmill.notes VALUES ($1, $2, $3, clock_timestamp())
    ON CONFLICT (space, name) DO UPDATE SET data = excluded.data, at = excluded.at"""
_RESPONSES = "SELECT key, data FROM gristmill.responses WHERE key = ANY($1::bytea[])"
_CALLS = """SELECT key, data, run, stage, role FROM gristmill.responses JOIN gristmill.ledger ON id = payer
    WHERE key = ANY($1::bytea[])"""
_KEPT = "SELECT key, status FROM gristmill.results WHERE key = ANY($1::bytea[])"
_RESULTS = "SELECT key, value FROM gristmill.results WHERE key = ANY($1::bytea[])"
_LEDGER = """SELECT stage, role, calls, tokens_in, tokens_out, tokens_cached, tokens_reasoning, nano_usd, unanswered
    FROM gristmill.ledger WHERE run = $1 ORDER BY id"""
_NOTES = """SELECT name, data, extract(epoch FROM at)::float8, extract(epoch FROM clock_timestamp() - at)::float8
    FROM gristmill.notes WHERE space = $1"""

Question = tuple[bytes, "asyncio.Future[bytes | None]"]


class PostgresStore(Store):
    def __init__(self, address: str, *, hashes: Path | None) -> None:
        super().__init__(hashes)
        self.place = named(address)
        self._beside = LoopThread()
        self._claims = Claims(self.place)
        self._reader, self._writer = Link(address), Link(address, greet=self._claims.renew)
        self._me, self._number = uuid.uuid4(), 0  # of the commit begun last
        self._asking = threading.Lock()
        self._questions: list[Question] = []
        self._answering: asyncio.Task[None] | None = None
        try:
            self._beside.call(self._open())
        except (ConfigError, StoreError):
            self._disconnect()
            raise
        self._thread.start()

    async def _open(self) -> None:
        await self._writer.open()
        await self._reader.open()
        try:
            version = await self._writer.run(_make_tables)
        except StoreError as error:
            raise ConfigError(error.message, "The user needs the right to make a schema in this database.") from error
        if version > VERSION:
            raise ConfigError(
                f"the store, {self.place}, was made by a newer version of gristmill "
                f"(layout {version}, this one knows {VERSION})",
                "Update gristmill, or choose another database.",
            )

    @contextmanager
    def claim(self, run: str, holder: Holder) -> Iterator[None]:
        self._beside.call(self._writer.run(lambda link: self._claims.take(link, run, holder)))
        beat = asyncio.run_coroutine_threadsafe(self._beat(), self._beside.loop)
        try:
            yield
        finally:
            beat.cancel()
            self._claims.forget(run)
            self._beside.call(self._writer.once(lambda link: self._claims.release(link, run)))

    async def _beat(self) -> None:
        with suppress(StoreError):  # told to whoever writes next
            while True:
                await asyncio.sleep(BEAT)
                await self._writer.run(lambda link: link.execute("SELECT 1"))

    # The reading side.

    async def response(self, key: str) -> dict[str, Any] | None:
        waiting: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        with self._asking:
            if self._closed:
                raise StoreError(CLOSED)
            self._questions.append((packed(key), waiting))
            first = len(self._questions) == 1
        if first:
            self._beside.loop.call_soon_threadsafe(self._begin_answering)
        data = await waiting
        return None if data is None else orjson.loads(data)

    def _begin_answering(self) -> None:
        if self._answering is None or self._answering.done():
            self._answering = asyncio.create_task(self._answer())

    async def _answer(self) -> None:
        """Answer what has been asked, and what is asked meanwhile."""
        while True:
            with self._asking:
                questions, self._questions = self._questions, []
            if not questions:
                return
            try:
                found, error = await self._looked_up(list({key for key, _ in questions})), None
            except StoreError as failed:
                found, error = {}, failed
            _deliver(questions, found, error)

    async def _looked_up(self, keys: list[bytes]) -> dict[bytes, bytes]:
        """Whatever goes wrong is a StoreError: those who asked wait for an answer or for that."""
        try:
            with boundary("reading the store"):
                return dict(await self._reader.run(lambda link: link.fetch(_RESPONSES, keys)))
        except StageFailure as failed:
            raise StoreError(f"the store, {self.place}, cannot be read: {failed.failure.error}") from failed

    def calls(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        found = {place: rest for place, *rest in self._found(_CALLS, keys)}
        rows = ((key, found[place]) for key, place in zip(keys, map(packed, keys), strict=True) if place in found)
        return [{"key": key, "run": r, "stage": s, "role": o, **orjson.loads(data)} for key, (data, r, s, o) in rows]

    def spent_by_stage(self, run: str) -> dict[tuple[str, str], Spent]:
        return {(stage, role): Spent(*sums) for stage, role, *sums in self._fetch(_LEDGER, run)}

    def held(self, run: str) -> Hold:
        rows = self._fetch("SELECT calls, tokens, nano_usd FROM gristmill.holds WHERE run = $1", run)
        return Hold(*rows[0]) if rows else Hold()

    def kept(self, keys: Sequence[str]) -> dict[str, Status]:
        names = dict(zip(map(packed, keys), keys, strict=True))
        return {names[place]: STATUSES[status] for place, status in self._found(_KEPT, keys)}

    def results(self, keys: Sequence[str]) -> dict[str, bytes]:
        names = dict(zip(map(packed, keys), keys, strict=True))
        return {names[place]: value for place, value in self._found(_RESULTS, keys)}

    def notes(self, space: str) -> dict[str, dict[str, Any]]:
        rows = self._fetch(_NOTES, space)
        return {name: {**orjson.loads(data), "at": at, "age": age} for name, data, at, age in rows}

    def _found(self, sql: str, keys: Sequence[str]) -> list[asyncpg.Record]:
        chunks = (keys[start : start + READ_CHUNK] for start in range(0, len(keys), READ_CHUNK))
        return [row for chunk in chunks for row in self._fetch(sql, list(map(packed, chunk)))]

    def _fetch(self, sql: str, value: object) -> list[asyncpg.Record]:
        if self._closed:
            raise StoreError(CLOSED)
        work: Work[list[asyncpg.Record]] = lambda link: link.fetch(sql, value)  # noqa: E731
        return self._beside.call(self._reader.run(work))

    # The writing side.

    def _commit(self, commit: Commit) -> None:
        self._number += 1
        self._beside.call(self._writer.run(_Transaction(commit, self._me, self._number)))

    def _disconnect(self) -> None:
        self._beside.call(self._end())
        self._beside.close()

    async def _end(self) -> None:
        if self._answering is not None:
            await self._answering
        await self._reader.close()
        await self._writer.once(lambda link: link.execute(_LEAVE, self._me))
        await self._writer.close()


class _Transaction:
    """One commit. Called again after a break, it does nothing if the attempt before was committed after all."""

    def __init__(self, commit: Commit, writer: uuid.UUID, number: int) -> None:
        self._commit = commit
        self._own = writer, number

    async def __call__(self, link: asyncpg.Connection[Any]) -> None:
        commit = self._commit
        async with link.transaction():
            # What adds up may not be written twice; the rest may.
            if commit.charges and await link.fetchval(_BEGIN, *self._own) is None:
                return
            await self._pay(link)
            if commit.results:
                rows = sorted((packed(k), status, value) for k, (status, value) in commit.results.items())
                await link.execute(_PUT_RESULTS, *map(list, zip(*rows, strict=True)))
            for run, hold in commit.holds.items():
                if hold == Hold():
                    await link.execute("DELETE FROM gristmill.holds WHERE run = $1", run)
                else:
                    await link.execute(_PUT_HOLD, run, hold.calls, hold.tokens, hold.nano_usd)
            for (space, name), data in sorted(commit.notes.items()):
                if data is None:
                    await link.execute("DELETE FROM gristmill.notes WHERE space = $1 AND name = $2", space, name)
                else:
                    await link.execute(_PUT_NOTE, space, name, data)

    async def _pay(self, link: asyncpg.Connection[Any]) -> None:
        """Charges and answers, in the order of their keys, so that machines that write at once wait for each other one
        way."""
        payers: dict[Payer, int] = {}
        for payer, sums in sorted(by_payer(self._commit.charges).items()):
            payers[payer] = await link.fetchval(_CHARGE, *payer, *sums)
        rows: dict[bytes, tuple[int, bytes]] = {}
        for key, data, charge in self._commit.responses:
            rows.setdefault(packed(key), (payers[charge[:3]], data))
        if rows:
            keys = sorted(rows)
            await link.execute(_PUT_RESPONSES, keys, [rows[key][0] for key in keys], [rows[key][1] for key in keys])


async def _make_tables(link: asyncpg.Connection[Any]) -> int:
    """The layout of the tables: made where there are none, renewed where it is older; machines that start at once take
    turns. Gives the layout found where it is newer."""
    async with link.transaction():
        await link.execute("SELECT pg_advisory_xact_lock(hashtext('gristmill.layout'))")
        if await link.fetchval("SELECT to_regclass('gristmill.layout') IS NULL"):
            await link.execute("CREATE SCHEMA IF NOT EXISTS gristmill; CREATE TABLE gristmill.layout (version integer)")
            await link.execute(_LAYOUT)
            await link.execute("INSERT INTO gristmill.layout VALUES (1)")
        version = int(await link.fetchval("SELECT version FROM gristmill.layout"))
        if version < VERSION:
            await link.execute(_FROM_1)
            await link.execute("UPDATE gristmill.layout SET version = $1", VERSION)
        elif version == VERSION:
            await link.execute(_SWEEP, FORGOTTEN)
        return max(version, VERSION)


def _deliver(questions: list[Question], found: dict[bytes, bytes], error: StoreError | None) -> None:
    """Give everyone their answer, in the loop they wait in."""
    loops: dict[asyncio.AbstractEventLoop, list[Question]] = {}
    for key, waiting in questions:
        loops.setdefault(waiting.get_loop(), []).append((key, waiting))
    for loop, its in loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, its, found, error)


def _settle(questions: list[Question], found: dict[bytes, bytes], error: StoreError | None) -> None:
    for key, waiting in questions:
        if waiting.done():
            continue
        if error is None:
            waiting.set_result(found.get(key))
        else:
            waiting.set_exception(error)
