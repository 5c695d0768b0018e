"""Which batches are under way and who looks after them: notes in the store, for this process, for the one that comes
after it, and for those beside it.

A batch is noted before it is handed in, with its tag (ours, also written on every line of it and, where the provider
lets us, on the batch) and its keys. So after a kill there are two cases. A note with the provider's id: that batch is
followed. A note without: the batch was perhaps handed in, and is looked for by its tag before its keys are free.

Two processes never hand in the same key, whatever the clocks say. Each first writes its note and then looks at those of
the others: of two who want the same key at least one sees the other's, and who sees one takes its own back and tries
again. A batch belongs to the process that noted it for as long as that process gives signs of life; then to whoever
takes it over, in the same way.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from typing import Any

from gristmill.core.store import Store

SILENT = 6  # beats without a sign after which a process counts as dead
FORGOTTEN = 86_400.0  # seconds after which the sign of a dead process is swept away
KEY_LETTERS = 48  # of a key on a line: 192 bits tell keys apart, and with the tag they fit into 64 letters


@dataclass(slots=True, eq=False)
class Batch:
    """Requests that went, or go, to the provider together."""

    tag: str
    place: str  # what the requests are for, in the provider's words
    keys: dict[str, None]  # not answered for yet, in the order of the lines
    count: int  # lines handed in
    owner: str
    id: str | None = None  # the provider's name for it; None until it is known to be handed in
    since: float = 0.0  # seconds since epoch, by the database's clock: when it was first noted
    age: float = 0.0  # seconds since it was last noted
    delivered: set[str] = field(default_factory=set)  # keys whose answers are out and not yet kept
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # an answer was kept, or asked for

    def line_name(self, key: str) -> str:
        """What stands on a line: at most 64 letters of a-z, 0-9 and -."""
        return f"{self.tag}-{key[:KEY_LETTERS]}"


def new_batch(place: str, keys: list[str], owner: str) -> Batch:
    return Batch(secrets.token_hex(6), place, dict.fromkeys(keys), len(keys), owner)


class BatchNotes:
    """The notes of all processes about the batches of one model."""

    def __init__(self, store: Store, line: str, *, beat: float) -> None:
        self.me = secrets.token_hex(8)
        self._store = store
        self._batches, self._signs = f"batches:{line}", f"batchers:{line}"
        self._dead_after = beat * SILENT
        self._alive: set[str] = set()

    async def beat(self) -> None:
        """Give a sign of life; the first one before any note of a batch."""
        await self._store.put_note(self._signs, self.me, {})
        for name, sign in (await self._look_for_signs()).items():
            if sign["age"] > FORGOTTEN:
                await self._store.put_note(self._signs, name, None)

    async def leave(self) -> None:
        """Whatever this process looked after is anybody's from now on."""
        await self._store.put_note(self._signs, self.me, None)

    def orphaned(self, batch: Batch) -> bool:
        """Whether nobody looks after it: its process died, or is this one, which gave up on it."""
        return batch.owner == self.me or batch.owner not in self._alive

    async def read(self) -> list[Batch]:
        """Every batch that is noted, by whomever. Signs are read after notes: nobody notes a batch without one."""
        notes = await self._read(self._batches)
        await self._look_for_signs()
        return [
            Batch(
                tag=tag,
                place=note["place"],
                keys=dict.fromkeys(note["keys"]),
                count=note["count"],
                owner=note["owner"],
                id=note["id"],
                since=note["since"] or note["at"],
                age=note["age"],
            )
            for tag, note in notes.items()
        ]

    async def write(self, batch: Batch) -> None:
        """Durable on return. A batch without keys needs no note any more."""
        if not batch.keys:
            await self._store.put_note(self._batches, batch.tag, None)
            return
        data = {name: getattr(batch, name) for name in ("place", "count", "owner", "id", "since")}
        await self._store.put_note(self._batches, batch.tag, {**data, "keys": list(batch.keys)})

    async def remove(self, batch: Batch) -> None:
        await self._store.put_note(self._batches, batch.tag, None)

    async def claim(self, batch: Batch) -> bool:
        """Note a new batch of these keys; False, and no note, if somebody else wants one of them at the same time."""
        await self.write(batch)
        for other in await self.read():
            if other.tag == batch.tag:
                batch.since = other.since
            elif other.owner != self.me and not batch.keys.keys().isdisjoint(other.keys):
                await self.remove(batch)
                return False
        return True

    async def adopt(self, batch: Batch) -> Batch | None:
        """Take an orphan over, as it is noted now; None if somebody else does, or did."""
        claim = f"{batch.tag}:{self.me}"
        await self._store.put_note(self._signs, claim, {})
        try:
            rivals = [name for name in await self._read(self._signs) if name.startswith(f"{batch.tag}:")]
            if any(name != claim and name.partition(":")[2] in self._alive for name in rivals):
                return None
            now = next((other for other in await self.read() if other.tag == batch.tag), None)
            if now is None or not self.orphaned(now):
                return None
            now.owner = self.me
            await self.write(now)
            return now
        finally:
            await self._store.put_note(self._signs, claim, None)

    async def _look_for_signs(self) -> dict[str, dict[str, Any]]:
        signs = await self._read(self._signs)
        self._alive = {name for name, sign in signs.items() if sign["age"] < self._dead_after}
        return signs

    async def _read(self, space: str) -> dict[str, dict[str, Any]]:
        """In a thread: notes of large batches take some milliseconds to read."""
        return await asyncio.to_thread(self._store.notes, space)
