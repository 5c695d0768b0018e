"""The store's interface, and its writing side, which is the same whatever stands behind it.

Writers hand in what is to be kept and wait. One thread takes all that has been handed in, commits it once and wakes
every writer of it; while it commits, more gathers for the next. So durability costs one fsync per burst, not per write.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.errors import StageFailure, StoreError, boundary
from gristmill.core.store.hashes import FileHashes
from gristmill.core.store.types import STATUS_NUMBER, Charge, Hold, Holder, Spent, Status

PATIENCE, PATIENT = 0.004, 5  # seconds, and how often: what a commit waits while more is coming
LAZY = 0.05  # seconds that results nobody waits for may wait for company
MOST_BYTES = 32 << 20  # handed in and not yet taken for a commit: past this, writers are held up
CLOSED = "the store is closed"


class Commit:
    """What is written together: answers and charges add up, of results, holds and notes the last one counts."""

    __slots__ = ("charges", "count", "holds", "notes", "responses", "results", "size", "unwaited", "waiting")

    def __init__(self) -> None:
        self.responses: list[tuple[str, bytes, Charge]] = []
        self.charges: list[Charge] = []  # those of the responses too
        self.results: dict[str, tuple[int, bytes]] = {}
        self.holds: dict[str, Hold] = {}
        self.notes: dict[tuple[str, str], bytes | None] = {}
        self.waiting: list[asyncio.Future[None]] = []
        self.unwaited = False  # nobody would hear that some of it could not be written
        self.count = self.size = 0

    @property
    def writes(self) -> bool:
        return bool(self.charges or self.results or self.holds or self.notes)


class Store(ABC):
    """Made by `open_store`. What a coroutine here writes has reached the disk when it returns."""

    place: str
    """Where it is, for people: without a password."""

    def __init__(self, hashes: Path | None) -> None:
        self._hashes = FileHashes(hashes)
        self._gathering = threading.Condition(threading.Lock())
        self._next = Commit()
        self._crowded: list[asyncio.Future[None]] = []  # they wait for room in it
        self._crowd = 0  # how many waited for the last commit
        self._idle = False  # the writer waits for something to do
        self._closed = False
        self._lost: StoreError | None = None  # why results that nobody waited for are not there
        self._thread = threading.Thread(target=self._write_forever, name="store-writer", daemon=True)

    def close(self) -> None:
        """Everything handed in before is durable afterwards; whether all of it could be kept is told by `flush`."""
        with self._gathering:
            if self._closed:
                return
            self._closed = True
            self._gathering.notify_all()
        self._thread.join()
        self._disconnect()
        self._hashes.close()

    def claim(self, run: str, holder: Holder) -> AbstractContextManager[None]:  # noqa: ARG002  (a file has no rivals)
        """Hold a run against the other machines that share this store; ConfigError names who holds it. A file is for
        the processes of one machine: there the lock in the run's folder is all that is needed."""
        return nullcontext()

    # Responses: what models answered, and what it cost.

    @abstractmethod
    async def response(self, key: str) -> dict[str, Any] | None:
        """A stored answer."""

    async def put_response(self, key: str, data: dict[str, Any], charge: Charge) -> None:
        """Keep an answer and what it cost. The first one under a key stays: records already rest on it; every charge
        counts."""
        blob = orjson.dumps(data)
        if self._next.size > MOST_BYTES:
            await self._room()
        with self._gathering:
            commit = self._gather(len(blob))
            commit.responses.append((key, blob, charge))
            commit.charges.append(charge)
            waiting = self._waiting(commit)
        await waiting

    async def charge(self, charge: Charge) -> None:
        """A request that was, or may have been, paid for and brought no answer."""
        with self._gathering:
            commit = self._gather()
            commit.charges.append(charge)
            waiting = self._waiting(commit)
        await waiting

    @abstractmethod
    def calls(self, keys: Sequence[str]) -> list[dict[str, Any]]:
        """The stored answers under some keys, in that order, with who asked for them; unknown keys are left out."""

    @abstractmethod
    def spent_by_stage(self, run: str) -> dict[tuple[str, str], Spent]:
        """What a run has paid so far, over all its attempts, by stage and role."""

    def spent(self, run: str) -> Spent:
        """What a run has paid so far, over all its attempts."""
        lines = self.spent_by_stage(run).values()
        return Spent(*(sum(column) for column in zip(*(vars(line).values() for line in lines), strict=True)))

    async def hold(self, run: str, calls: int, tokens: int, nano_usd: int) -> None:
        """State the most that what is in flight can cost, before it is sent; nothing of it clears the hold."""
        with self._gathering:
            commit = self._gather()
            commit.holds[run] = Hold(calls, tokens, nano_usd)
            waiting = self._waiting(commit)
        await waiting

    @abstractmethod
    def held(self, run: str) -> Hold:
        """The hold stated last; a finished process leaves none."""

    # Results: what steps and passes made.

    @abstractmethod
    def kept(self, keys: Sequence[str]) -> dict[str, Status]:
        """Which of these keys have a result, without reading it."""

    @abstractmethod
    def results(self, keys: Sequence[str]) -> dict[str, bytes]:
        """What is kept under any of these keys: ask for as many as may lie in memory together."""

    async def put_result(self, key: str, value: bytes, *, status: Status = "given") -> None:
        """Keep a result; it replaces what was kept under its key."""
        number = STATUS_NUMBER[status]
        if self._next.size > MOST_BYTES:
            await self._room()
        with self._gathering:
            self._tell_lost()
            commit = self._gather(len(value))
            commit.results[key] = number, value
            waiting = self._waiting(commit)
        await waiting

    def keep_result(self, key: str, value: bytes, *, status: Status = "given") -> None:
        """`put_result`, not waited for: for what can be made again from stored answers. That it could not be written
        is told to whoever hands in a result next, or flushes. How much may gather is its caller's to bound, by
        flushing."""
        number = STATUS_NUMBER[status]
        with self._gathering:
            self._tell_lost()
            commit = self._gather(len(value), urgent=False)
            commit.results[key] = number, value
            commit.unwaited = True

    async def flush(self) -> None:
        """Everything handed in before is durable when this returns."""
        with self._gathering:
            self._tell_lost()
            waiting = self._waiting(self._gather())
        await waiting

    # Notes: small documents that processes share.

    @abstractmethod
    def notes(self, space: str) -> dict[str, dict[str, Any]]:
        """All notes of a space, each with `at` (when it was written, seconds since the epoch) and `age` (seconds since
        then), both by the clock of the store: clocks of machines differ."""

    async def put_note(self, space: str, name: str, data: dict[str, Any] | None) -> None:
        """Write a note; None removes it."""
        blob = None if data is None else orjson.dumps(data)
        with self._gathering:
            commit = self._gather(len(blob or b""))
            commit.notes[space, name] = blob
            waiting = self._waiting(commit)
        await waiting

    def file_hash(self, path: Path) -> str:
        """sha256 of a file of this machine, remembered until the file changes."""
        return self._hashes.of(path)

    # The writing side.

    @abstractmethod
    def _commit(self, commit: Commit) -> None:
        """Write it in one transaction, in the writer's thread; StoreError if nothing of it was written."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Let go of files and connections, once the last commit is written."""

    def _gather(self, size: int = 0, *, urgent: bool = True) -> Commit:
        """The commit that gathers, for so many bytes more. The lock is held."""
        if self._closed:
            raise StoreError(CLOSED)
        self._next.size += size
        self._next.count += 1
        if self._idle and (urgent or not self._next.unwaited):  # the writer knows already that there is something
            self._idle = False
            self._gathering.notify_all()
        return self._next

    async def _room(self) -> None:
        """Wait while more has been handed in than may gather: in turn, and without holding up the event loop."""
        while True:
            with self._gathering:
                if self._closed or self._next.size <= MOST_BYTES:
                    return
                room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._crowded.append(room)
            await room

    def _tell_lost(self) -> None:
        """That results are lost concerns those who hand in results: what was paid for is kept all the same. The lock
        is held."""
        if self._lost is not None:
            lost, self._lost = self._lost, None
            raise lost

    def _waiting(self, commit: Commit) -> asyncio.Future[None]:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        commit.waiting.append(waiting)
        return waiting

    def _take(self) -> Commit | None:
        """What has gathered; None when the store is closed and all is written."""
        with self._gathering:
            while not self._next.waiting:
                if self._closed and not self._next.writes:
                    return None
                self._idle = True
                if not self._next.writes:
                    self._gathering.wait()
                elif self._closed or not self._gathering.wait(LAZY):
                    break
            self._idle = False
            self._let_gather()
            commit, self._next = self._next, Commit()
            self._crowd = commit.count
            crowded, self._crowded = self._crowded, []
        _wake(crowded, None)
        return commit

    def _let_gather(self) -> None:
        """Where many write, a commit waits some milliseconds while more of them come: fewer commits cost less. One
        who writes alone is not kept waiting."""
        seen = 0
        for _ in range(PATIENT if self._crowd > 2 else 0):
            if self._closed or self._next.count == seen or self._next.size > MOST_BYTES:
                return
            seen = self._next.count
            self._gathering.wait(PATIENCE)

    def _write_forever(self) -> None:
        while (commit := self._take()) is not None:
            error = self._written(commit)
            if error is not None and commit.unwaited:
                self._lost = error
            _wake(commit.waiting, error)

    def _written(self, commit: Commit) -> StoreError | None:
        """Write it; the error that all its writers must hear, if that failed. The writing thread itself goes on."""
        try:
            with boundary("writing to the store"):
                if commit.writes:
                    self._commit(commit)
        except StoreError as error:
            return error
        except StageFailure as failed:
            return StoreError(f"the store {self.place} cannot be written: {failed.failure.error}")
        return None


def _wake(waiting: list[asyncio.Future[None]], error: StoreError | None) -> None:
    """Tell every writer of a commit: one call into each event loop, however many wait there."""
    loops: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
    for future in waiting:
        loops.setdefault(future.get_loop(), []).append(future)
    for loop, futures in loops.items():
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(_settle, futures, error)


def _settle(futures: list[asyncio.Future[None]], error: StoreError | None) -> None:
    for future in futures:
        if future.done():  # its task was cancelled meanwhile
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
