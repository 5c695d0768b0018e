"""Runs that this process holds against all other machines over one PostgreSQL store.

A lock of the session is exact, and dies with the process that took it. It lies on the connection that writes, which
takes it again whenever it is made again: so nobody writes for a run that another has taken meanwhile. Who holds a run
stands in a note, which also tells a break from a rival: while the note is ours, nobody else had the run.
"""

from __future__ import annotations

import asyncio
import time
from hashlib import sha256
from secrets import token_hex
from typing import Any

import asyncpg
import orjson

from gristmill.core.errors import ConfigError, StoreError
from gristmill.core.store.types import Holder

SPACE = "holders"
PATIENCE = 2.0  # seconds: of a process that has just died, the server hears at once, but not before
GHOST_SECONDS = 60.0  # seconds until the server has noticed that a connection of ours is broken
LOOK = 0.1  # seconds between two attempts

_NOTE = "SELECT data FROM gristmill.notes WHERE space = $1 AND name = $2"
_PUT = """INSERT INTO gristmill.notes VALUES ($1, $2, $3, clock_timestamp())
    ON CONFLICT (space, name) DO UPDATE SET data = excluded.data, at = excluded.at"""
_DROP = "DELETE FROM gristmill.notes WHERE space = $1 AND name = $2"


class Claims:
    """All that one store holds; every connection given here is the one that writes."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._notes: dict[str, bytes] = {}  # by run, as they stand in the store

    async def take(self, link: asyncpg.Connection[Any], run: str, holder: Holder) -> None:
        """Hold a run; a second process that wants it is refused, with the holder named."""
        end = time.monotonic() + PATIENCE
        while not await _lock(link, run):
            if time.monotonic() > end:
                raise ConfigError(
                    f"run {run} is running already ({_named(await _note(link, run))})",
                    f"It shares {self._place}. Stop it where it runs, or let it finish: this machine then takes over "
                    "what it has paid for.",
                )
            await asyncio.sleep(LOOK)
        note = orjson.dumps({**vars(holder), "claim": token_hex(8)})  # two claims of one process differ
        await link.execute(_PUT, SPACE, run, note)
        self._notes[run] = note

    async def renew(self, link: asyncpg.Connection[Any]) -> None:
        """Over a new connection, hold again what the broken one held. StoreError if another had it in between."""
        for run, note in list(self._notes.items()):  # `forget` is called from other threads
            end = time.monotonic() + GHOST_SECONDS
            while True:
                locked = await _lock(link, run)
                found = await _note(link, run)
                if found != note:
                    raise StoreError(
                        f"run {run} was taken by {_named(found)} while the connection to {self._place} was broken",
                        "What was confirmed is kept. When the other has ended, the same command shows what it made.",
                    )
                if locked:
                    break
                if time.monotonic() > end:
                    raise StoreError(f"run {run} is still held by a broken connection to {self._place}", "Try later.")
                await asyncio.sleep(LOOK)

    async def release(self, link: asyncpg.Connection[Any], run: str) -> None:
        await link.execute(_DROP, SPACE, run)
        await link.execute("SELECT pg_advisory_unlock($1)", _number(run))

    def forget(self, run: str) -> None:
        """Not to be held again when the connection breaks."""
        self._notes.pop(run, None)


async def _lock(link: asyncpg.Connection[Any], run: str) -> bool:
    return bool(await link.fetchval("SELECT pg_try_advisory_lock($1)", _number(run)))


async def _note(link: asyncpg.Connection[Any], run: str) -> bytes | None:
    note: bytes | None = await link.fetchval(_NOTE, SPACE, run)
    return note


def _number(run: str) -> int:
    """The server knows locks by numbers of 64 bits."""
    return int.from_bytes(sha256(f"gristmill run {run}".encode()).digest()[:8], signed=True)


def _named(note: bytes | None) -> str:
    if note is None:
        return "another process"
    data = orjson.loads(note)
    return str(Holder(data["process"], data["host"], data["since"]))
