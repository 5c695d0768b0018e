"""Who waits for an answer from a batch, and where: in a batch of ours, for another process's, or for the next one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from gristmill.llm.batch.desk import Entry
from gristmill.llm.batch.notes import Batch
from gristmill.llm.provider import Reply
from gristmill.llm.spec import BatchSpec

WINDOW = 2  # batches' worth of requests that the client lets ask at once
SETTLE = 1.0  # seconds without a newcomer after which a batch goes when everybody who can wait does


@dataclass(slots=True, eq=False)
class Waiter:
    """One who asked. An answer of None: look in the store."""

    entry: Entry
    answer: asyncio.Future[Reply | None]


@dataclass(slots=True, eq=False)
class Gathering:
    """Keys on their way into a batch, and what their lines come to."""

    keys: dict[str, None] = field(default_factory=dict)
    weight: int = 0
    size: int = 0  # bytes
    last: float = 0.0  # when the last one came


class Room:
    """The waiters of one model, by key."""

    def __init__(self, spec: BatchSpec, *, most: int, most_bytes: int) -> None:
        self._spec, self._full, self._full_bytes = spec, min(spec.size, most), most_bytes
        self.window = WINDOW * spec.size
        self.most = self._full  # weight of the next batch: less where the account has too little room
        self.waiters: dict[str, Waiter] = {}
        self.gathered: dict[str, Gathering] = {}  # by place
        self.held: dict[str, Batch] = {}  # keys of our own batches
        self.elsewhere: set[str] = set()  # keys that batches of other processes hold

    async def wait(self, key: str, entry: Entry) -> Reply | None:
        waiter = self.waiters[key] = Waiter(entry, asyncio.get_running_loop().create_future())
        self._place(key, waiter)
        try:
            return await waiter.answer
        finally:
            if self.waiters.get(key) is waiter:
                del self.waiters[key]

    def awaited(self, key: str) -> bool:
        return (waiter := self.waiters.get(key)) is not None and not waiter.answer.done()

    def answer(self, key: str, reply: Reply | None) -> None:
        if self.awaited(key):
            self.waiters[key].answer.set_result(reply)

    def fail(self, keys: Iterable[str], error: BaseException) -> None:
        for key in list(keys):
            if self.awaited(key):
                self.waiters[key].answer.set_exception(error)

    def place(self, keys: Iterable[str]) -> None:
        """Whoever of them still waits is where he belongs now."""
        for key in list(keys):
            if self.awaited(key):
                self._place(key, self.waiters[key])

    def _place(self, key: str, waiter: Waiter) -> None:
        """Among those of its batch, if one holds it; else among those that gather."""
        if (batch := self.held.get(key)) is not None:
            batch.changed.set()
        elif key not in self.elsewhere:
            gathering = self.gathered.setdefault(waiter.entry.place, Gathering())
            if key in gathering.keys:
                return
            gathering.keys[key] = None
            gathering.weight += waiter.entry.weight
            gathering.size += len(waiter.entry.body)
            gathering.last = time.monotonic()

    def hold(self, batch: Batch) -> None:
        self.held.update(dict.fromkeys(batch.keys, batch))

    def let_go(self, batch: Batch) -> None:
        for key in batch.keys:
            self.held.pop(key, None)

    def unlimited(self) -> None:
        """The account has room again for a whole batch."""
        self.most = self._full

    def due(self) -> list[tuple[str, dict[str, bytes]]]:
        """What is to be handed in now: places, and the lines of a batch for each."""
        taken = [(place, self._take(some)) for place, some in self.gathered.items() if some.keys and self._due(some)]
        return [(place, lines) for place, lines in taken if lines]

    def _due(self, gathering: Gathering) -> bool:
        if gathering.weight >= self.most or gathering.size >= self._full_bytes:
            return True
        everybody = len(self.waiters) >= self.window
        quiet = min(self._spec.seconds, SETTLE) if everybody else self._spec.seconds
        return time.monotonic() - gathering.last >= quiet

    def _take(self, gathering: Gathering) -> dict[str, bytes]:
        """As many as one batch may hold, in the order in which they came."""
        taken: dict[str, bytes] = {}
        weight = size = 0
        for key in list(gathering.keys):
            if self.awaited(key):
                entry = self.waiters[key].entry
                if taken and (weight + entry.weight > self.most or size + len(entry.body) > self._full_bytes):
                    break
                weight, size = weight + entry.weight, size + len(entry.body)
                taken[key] = entry.body
            del gathering.keys[key]
        left = [self.waiters[key].entry for key in gathering.keys if key in self.waiters]
        gathering.weight, gathering.size = sum(entry.weight for entry in left), sum(len(entry.body) for entry in left)
        return taken
