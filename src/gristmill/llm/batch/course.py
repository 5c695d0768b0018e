"""One batch, from the hand-in to the last answer kept: submitted, looked at with growing intervals, read line by line.

Each answer goes to who waits for it as its line is read; no file is ever held as a whole. How often a request is tried
again is the client's business: a line that brought no answer is told to its waiter, and who asks again is in the next
batch.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gristmill.core.errors import ProviderError
from gristmill.core.logs import log
from gristmill.llm.batch.desk import Desk, State, Undecided, reply_of
from gristmill.llm.batch.notes import Batch, BatchNotes
from gristmill.llm.batch.room import Room
from gristmill.llm.provider import Refused, Reply, Unanswered, Unusable

T = TypeVar("T")

GROWTH, LONGEST_POLL = 1.3, 300.0  # how intervals between looks grow, and their longest, in seconds
TRIES = 6  # of reading results
LONGEST_WAIT = 60.0  # seconds before an exchange is tried again
PATIENCE = 3600.0  # seconds for which a provider that answers nothing is asked again after a batch under way
LONGEST_PAUSE = 600.0  # seconds before a batch that the account had no room for is handed in again
UNSEEN = (
    "It is not handed in again unseen. Let the key list batches, and run the same command again. If the server cannot "
    "list them, remove `batch` from the model's entry: its requests are then asked one by one, and paid for twice if "
    "the batch was taken."
)


class Course:
    """What every batch of one model goes through."""

    def __init__(self, desk: Desk, notes: BatchNotes, room: Room, *, poll: float, grace: float) -> None:
        self._desk, self._notes, self._room = desk, notes, room
        self._poll, self._grace = poll, grace
        self._pause = poll
        self.not_before = 0.0  # when the next batch may be handed in

    async def submit(self, batch: Batch, lines: dict[str, bytes], halted: Callable[[], bool]) -> str | None:
        """The provider's id; None if the run was stopped before the batch was taken. `perhaps_taken` tells what an
        error leaves open."""
        named = [(batch.line_name(key), body) for key, body in lines.items()]
        refusals = 0
        while not halted():
            try:
                return await self._desk.submit(batch, named)
            except Refused as error:
                refusals += 1
                wait = _wait(refusals, error.retry_after)
                log("batch_refused", error=error.message, wait=wait)
            await asyncio.sleep(wait)
        return None

    async def find(self, batch: Batch) -> str | None:
        """The id of a batch that was perhaps handed in; None if the provider does not list it for as long as `grace`.
        No error says anything about the batch: whoever hears one knows no more than before."""
        until = time.monotonic() + self._grace
        while True:
            known = {other.id for other in await self._notes.read() if other.id is not None}

            async def search(known: set[str] = known) -> str | None:
                return await self._desk.find(batch, known=known)

            try:
                found = await self._patiently(search)
            except Undecided:
                await asyncio.sleep(self._poll)
                continue
            except Unanswered:
                raise
            except ProviderError as error:  # whatever it is about, it is not about a request
                message = f"batch {batch.tag} was perhaps taken, and cannot be looked for: {error.message}"
                raise Unusable(message, UNSEEN, status=error.status) from error
            if found is not None or time.monotonic() >= until:
                return found
            await asyncio.sleep(self._grace / 6)

    async def follow(self, batch: Batch, id: str) -> None:
        """Until all its answers are kept, or nobody waits for those that are left. Afterwards no key of it waits."""
        state = await self._end(id)
        if state.gone:
            log("batch_gone", batch=id, requests=len(batch.keys))
            await self._notes.remove(batch)
        elif state.failed is not None:
            log("batch_failed", batch=id, error=state.failed.message)
            await self._turned_down(batch, state, state.failed)
        else:
            self._pause = self._poll
            self._room.unlimited()
            await self._collect(batch, state)

    async def _end(self, id: str) -> State:
        async def look() -> State:
            return await self._desk.look(id)

        interval = self._poll
        while True:
            state = await self._patiently(look)
            if state.ended or state.gone:
                return state
            await asyncio.sleep(interval)
            interval = min(interval * GROWTH, max(LONGEST_POLL, self._poll))

    async def _turned_down(self, batch: Batch, state: State, failed: ProviderError) -> None:
        """Nothing of it was done or paid for. Lines that are at fault go; those beside them are handed in again."""
        keys = list(batch.keys)
        await self._notes.remove(batch)
        if isinstance(failed, Refused):  # too much at once for this account: half as much, and later
            self._room.most = max(1, len(keys) // 2)
            self.not_before = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, max(LONGEST_PAUSE, self._poll))
        elif state.bad:
            for number, error in state.bad.items():
                self._room.fail(keys[number - 1 : number], error)
        else:
            self._room.fail(keys, failed)

    async def _collect(self, batch: Batch, state: State) -> None:
        """Read the results for as long as somebody asks for them. What nobody asked for (the recipe has changed) is
        left in the note, for whoever does."""
        tries = 0
        while batch.delivered or any(map(self._room.awaited, batch.keys)):
            batch.changed.clear()
            if not any(map(self._room.awaited, batch.keys)):
                await batch.changed.wait()
                continue
            try:
                await self._read(batch, state)
                tries = 0
            except Unanswered as error:
                tries += 1
                if tries == TRIES:
                    raise
                log("batch_results_broken", batch=batch.id, error=error.message)
                await asyncio.sleep(_wait(tries, error.retry_after))
        batch.owner = ""
        await self._notes.write(batch)

    async def _read(self, batch: Batch, state: State) -> None:
        """One passage over the results. Answers go out as they come. Lines without one leave the note before those who
        wait for them hear of it: then they may be handed in again."""
        names = {batch.line_name(key): key for key in batch.keys}
        unanswered: dict[str, ProviderError] = {}
        async for name, outcome in self._desk.results(state):
            key = names.pop(name, None)
            if key is None:  # twice in the file, or answered for by now
                continue
            waiter = self._room.waiters.get(key) if self._room.awaited(key) else None
            reply = reply_of(self._desk.provider, waiter.entry, outcome) if waiter else outcome
            if isinstance(reply, ProviderError):
                unanswered[key] = reply
            elif isinstance(reply, Reply):
                batch.delivered.add(key)
                self._room.answer(key, reply)
        missing = Unanswered("the provider's results lack this request", charged=True)
        unanswered.update(dict.fromkeys(names.values(), missing))
        if not unanswered:
            return
        for key in unanswered:
            batch.keys.pop(key, None)
            self._room.held.pop(key, None)
        await self._notes.write(batch)
        for key, error in unanswered.items():
            self._room.fail((key,), error)

    async def _patiently(self, exchange: Callable[[], Awaitable[T]]) -> T:
        """Its outcome, however often the provider fails to give it: what it is about is paid for."""
        began, tries = time.monotonic(), 0
        while True:
            try:
                return await exchange()
            except Unanswered as error:
                tries += 1
                if time.monotonic() - began > PATIENCE:
                    raise
                wait = _wait(tries, error.retry_after)
                log("batch_unreachable", error=error.message, wait=wait)
            await asyncio.sleep(wait)


def _wait(tries: int, told: float | None) -> float:
    """Seconds before an exchange is tried again."""
    return min(LONGEST_WAIT, told if told is not None else 0.5 * 2.0**tries) * random.uniform(0.9, 1.1)
