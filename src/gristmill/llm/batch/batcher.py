"""Asks through a provider's batch interface: half the price, answers within a day.

Workers `ask` as they would ask for one answer. Their requests gather into a batch until it is full or nobody has come
for a while (`batch_room`); it is handed in and followed to its end (`batch_course`) at the provider's `batch_desk`.

Nothing is paid for twice: which keys a batch holds is noted in the store before it is handed in (`batch_notes`), and a
key that is noted never goes into another batch. It leaves the note when its answer is kept (`kept`), when its line
brought none, or when no batch was made of it. So this may be killed at any point, and any exchange may fail.

A batch whose id was never heard (the process was killed, the connection broke) is looked for by its tag. If looking
fails, it stays noted, and who asks again looks again. What remains is one window: a batch that the provider does not
list within a minute counts as not made, and one that it began to list later would be handed in again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from gristmill.core.errors import Cancelled, ConfigError, ProviderError
from gristmill.core.logs import log
from gristmill.core.store import Store
from gristmill.llm.batch.course import Course
from gristmill.llm.batch.desk import Desk, entry_of, perhaps_taken
from gristmill.llm.batch.notes import Batch, BatchNotes, new_batch
from gristmill.llm.batch.room import Room
from gristmill.llm.provider import Provider, Reply, Request, Unanswered
from gristmill.llm.spec import BatchSpec

BEAT = 5.0  # seconds between two signs of life
TICK = 0.2  # seconds between two looks at what has gathered
GRACE = 60.0  # seconds within which a provider lists a batch that it took
HURRY = 10.0  # seconds that a batch just being handed in delays a stop: so its id can be told
CLOSING = 60.0  # seconds that a batch just being handed in has left when the run ends
RESULTS_LAST = 30 * 86_400.0  # seconds after which no provider has a batch's results any more


def batcher_of(provider: Provider, store: Store, spec: BatchSpec, *, stopping: Callable[[], bool]) -> Batcher:
    """At the batch interface that belongs to the provider. Whatever the key, batches are the model's: a new key of the
    same account finds those that the old one left."""
    from gristmill.llm.batch.anthropic import AnthropicDesk
    from gristmill.llm.batch.openai import OpenAIDesk
    from gristmill.llm.providers.anthropic import AnthropicProvider
    from gristmill.llm.providers.openai import OpenAIProvider

    if isinstance(provider, OpenAIProvider):
        desk: Desk = OpenAIDesk(provider)
    elif isinstance(provider, AnthropicProvider):
        desk = AnthropicDesk(provider)
    else:
        raise ConfigError(f"{provider.identity} has no batch interface", "Remove `batch` from its entry in `models`.")
    return Batcher(desk, store, spec, line=provider.identity, stopping=stopping, beat=BEAT, grace=GRACE)


class Batcher:
    """One per model and process. Close it before the store."""

    def __init__(
        self,
        desk: Desk,
        store: Store,
        spec: BatchSpec,
        *,
        line: str,
        stopping: Callable[[], bool],
        beat: float,
        grace: float,
    ) -> None:
        self._desk, self._store, self._stopping, self._beat = desk, store, stopping, beat
        self._room = Room(spec, most=desk.most, most_bytes=desk.most_bytes)
        self._notes = BatchNotes(store, line, beat=beat)
        self._course = Course(desk, self._notes, self._room, poll=spec.poll, grace=grace)
        self._mine: dict[str, Batch] = {}  # by tag
        self._surveying = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._handing_in: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._ready = self._closing = False

    @property
    def under_way(self) -> dict[str, int]:
        """Requests not answered for yet, by the provider's id of their batch."""
        return {batch.id: len(batch.keys) for batch in self._mine.values() if batch.id is not None}

    @property
    def waiting(self) -> int:
        """Requests on their way into a batch."""
        return sum(len(gathering.keys) for gathering in self._room.gathered.values())

    @property
    def window(self) -> int:
        """How many may ask at once."""
        return self._room.window

    async def ask(self, key: str, request: Request) -> Reply | None:
        """The answer to one request; None if another process has just kept it in the store.

        Whoever gets a reply keeps it durably and then calls `kept`.
        """
        await self._desk.provider.probe.recall()
        entry = entry_of(self._desk.provider, request)
        if len(entry.body) > self._desk.most_bytes:
            raise ProviderError(
                f"a request of {len(entry.body)} bytes fits into no batch", "Send less text per request."
            )
        if self._failure is not None:
            raise self._failure
        if not self._tasks:
            self._start(self._live())
            self._start(self._watch())
        return await self._room.wait(key, entry)

    def kept(self, key: str) -> None:
        """The answer to this key is in the store."""
        batch = self._room.held.pop(key, None)
        if batch is not None:
            batch.keys.pop(key, None)
            batch.delivered.discard(key)
            batch.changed.set()

    async def close(self) -> None:
        """Batches under way stay under way. One that is being handed in is waited for: its id is worth it. Whoever asks
        afterwards opens it again."""
        self._closing = True
        if self._handing_in:
            await asyncio.wait(self._handing_in, timeout=CLOSING)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._ready and self._failure is None:
            for batch in self._mine.values():
                await self._notes.write(batch)
            await self._notes.leave()
        for batch in list(self._mine.values()):
            self._drop(batch)
        self._room.elsewhere.clear()
        self._failure = None
        self._ready = self._closing = False

    async def _watch(self) -> None:
        """Hands in what has gathered, and tells everybody when the run is stopped."""
        asked_to_stop: float | None = None
        while True:
            if self._stopping():
                asked_to_stop = asked_to_stop or time.monotonic()
                if not self._handing_in or time.monotonic() - asked_to_stop > HURRY:
                    self._dismiss()
            elif self._ready and not self._closing and time.monotonic() >= self._course.not_before:
                for place, lines in self._room.due():
                    self._start(self._hand_in(place, lines), self._handing_in)
            await asyncio.sleep(TICK)

    def _dismiss(self) -> None:
        """The run is stopped: nobody waits for hours."""
        self._room.gathered.clear()
        if not self._room.waiters:
            return
        left = ", ".join(f"{id} ({count} requests)" for id, count in self.under_way.items())
        log("batches_left", batches=self.under_way)
        said = f"stopped; under way at the provider: batch {left}" if left else "stopped"
        hint = "Run the same command again: it fetches what is answered by then."
        self._room.fail(self._room.waiters, Cancelled(said, hint))

    async def _hand_in(self, place: str, lines: dict[str, bytes]) -> None:
        """Into a batch with those of these keys that no batch holds."""
        while lines := await self._free(lines):
            batch = new_batch(place, list(lines), self._notes.me)
            self._hold(batch)
            if await self._notes.claim(batch):
                break
            self._drop(batch)
            await asyncio.sleep(random.uniform(0.1, 1.0))
        else:
            return
        if kept := await self._leave_out_kept(batch):  # another process had them in a batch until a moment ago
            lines = {key: body for key, body in lines.items() if key not in kept}
            batch.count = len(lines)
            await self._notes.write(batch)
        if not lines:
            self._drop(batch)
            return
        try:
            await self._submit(batch, lines)
        except ProviderError as error:
            await self._give_up(batch, error)
        if batch.id is None:
            self._drop(batch)
            return
        await self._notes.write(batch)
        log("batch_submitted", batch=batch.id, requests=batch.count)
        self._start(self._follow(batch))

    async def _submit(self, batch: Batch, lines: dict[str, bytes]) -> None:
        """Its id; without one it was not made, and no note says otherwise. Raises where nobody knows."""
        failed: ProviderError | None = None
        try:
            batch.id = await self._course.submit(batch, lines, lambda: self._closing or self._stopping())
        except ProviderError as error:
            failed = error
        if failed is not None and perhaps_taken(failed):
            log("batch_perhaps_taken", batch=batch.tag, error=failed.message)
            batch.id = await self._course.find(batch)
        if batch.id is None:
            await self._notes.remove(batch)
            if failed is not None:
                self._room.fail(lines, failed)

    async def _free(self, lines: dict[str, bytes]) -> dict[str, bytes]:
        """Those that no batch holds; the others find their place."""
        await self._survey()
        held = {key for key in lines if key in self._room.held or key in self._room.elsewhere}
        self._room.place(held)
        return {key: line for key, line in lines.items() if key not in held and self._room.awaited(key)}

    async def _follow(self, batch: Batch) -> None:
        """To its end."""
        try:
            if batch.id is None:
                batch.id = await self._course.find(batch)
                await (self._notes.remove(batch) if batch.id is None else self._notes.write(batch))
            if batch.id is not None:
                await self._course.follow(batch, batch.id)
        except ProviderError as error:
            await self._give_up(batch, error)
        self._drop(batch)
        self._room.place(batch.keys)

    async def _give_up(self, batch: Batch, error: ProviderError) -> None:
        """Its end is not to be had (the key is refused), or whether it was made: it is anybody's, and whoever asks for
        its keys again follows it again. What it costs is counted when its answers are fetched, and not twice."""
        batch.owner = ""
        await self._notes.write(batch)
        if isinstance(error, Unanswered):
            error.charged = False
        self._room.fail(batch.keys, error)

    async def _live(self) -> None:
        """Signs of life; and what the other processes have finished, or left behind."""
        while True:
            await self._notes.beat()
            if not self._ready or self._room.elsewhere:
                await self._survey()
                self._ready = True
            await asyncio.sleep(self._beat * random.uniform(0.8, 1.2))

    async def _survey(self) -> None:
        """Take over the orphans that somebody here waits for, and place whoever waits for what others hold or held."""
        room = self._room
        async with self._surveying:
            elsewhere: set[str] = set()
            for batch in await self._notes.read():
                if batch.tag in self._mine:
                    continue
                if not self._notes.orphaned(batch):
                    elsewhere.update(batch.keys)
                elif batch.age > RESULTS_LAST:
                    await self._notes.remove(batch)
                elif any(map(room.awaited, batch.keys)):
                    elsewhere.update(await self._take_over(batch))
            concerned = (room.elsewhere | elsewhere) & room.waiters.keys()
            room.elsewhere = elsewhere
            for key in concerned:
                if await self._store.response(key) is not None:
                    room.answer(key, None)
                elif key not in elsewhere:
                    room.place((key,))

    async def _take_over(self, orphan: Batch) -> dict[str, None]:
        """Its keys if somebody else has taken it over, else none."""
        batch = await self._notes.adopt(orphan)
        if batch is None:
            return orphan.keys
        await self._leave_out_kept(batch)  # whoever was killed had no time to take them out of the note
        self._hold(batch)
        log("batch_found", batch=batch.id, requests=len(batch.keys))
        self._start(self._follow(batch))
        return {}

    async def _leave_out_kept(self, batch: Batch) -> set[str]:
        """The keys whose answers are in the store."""
        kept = {key for key in batch.keys if await self._store.response(key) is not None}
        for key in kept:
            del batch.keys[key]
            self._room.held.pop(key, None)
            self._room.answer(key, None)
        return kept

    def _hold(self, batch: Batch) -> None:
        self._mine[batch.tag] = batch
        self._room.hold(batch)

    def _drop(self, batch: Batch) -> None:
        self._mine.pop(batch.tag, None)
        self._room.let_go(batch)

    def _start(self, work: Coroutine[Any, Any, None], among: set[asyncio.Task[None]] | None = None) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        if among is not None:
            among.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        """What escapes (the store fails, or a defect) is everybody's: nobody waits for a task that is no more."""
        self._tasks.discard(task)
        self._handing_in.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error
            self._room.fail(self._room.waiters, error)
