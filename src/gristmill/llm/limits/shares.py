"""Limits shared by all processes of a workspace that use the same line (provider, model and key).

Every process keeps a note per line in the store and renews it about once a second: that it is there, whether it wants
to send, and which others it has seen. Those that want to send divide the line's limits evenly. Who comes anew sends
nothing until every other has seen it and made room; who has sent nothing for a while gives its part up. A process that
was killed is forgotten after five missed beats, and at once by those who can see that it has ended; who cannot renew
its note for as long, because the store is away, sends nothing until the others have seen that it is back.

Clocks: the age of a note never heard of before is told by the store (one clock for writing and reading it); from then
on it is alive as long as it changes by this process's own monotonic clock. So no clock that is wrong or jumps matters.
What the limiter learned (its best level, where it was refused) is a note beside them, for those that come later.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from gristmill.core.errors import StoreError
from gristmill.core.records import digest_of
from gristmill.core.store import Store
from gristmill.llm.limits.limiter import Limiter

BEAT = 1.0  # seconds between renewals
MISSED = 5  # beats without a sign after which a process is gone, or without a request after which it gives up its part
POLL = 0.2  # of a beat: how often a newcomer looks whether there is room
LEARNED = "learned"  # name of the note that outlives its writer
LEARN_BEATS = 30
STALE = 24 * 3600.0  # seconds; what was learned longer ago is no news
FORGOTTEN = 3600.0  # seconds without a sign after which a note is swept away


@dataclass(eq=False)
class _Member:
    """This process as one of those that use a line."""

    space: str
    limiter: Limiter
    beat: int = 0
    wants: bool = True
    asked: int = 1  # the beat that first said so
    holds: bool = False  # all others have seen that beat, and made room
    idle: int = 0  # beats without a request
    activity: float = 0.0
    heard: dict[str, tuple[Any, float]] = field(default_factory=dict)  # others: their last beat, and when it came
    others: dict[str, dict[str, Any]] = field(default_factory=dict)  # notes of those alive, as read last
    fuse: asyncio.TimerHandle | None = None  # when the others take this process for dead
    learned: dict[str, Any] = field(default_factory=dict)


class Shares:
    """One per client. A line joins before its first request; `close` gives everything back, and all may join again."""

    def __init__(self, store: Store, *, beat: float = BEAT) -> None:
        self._store = store
        self._beat = beat
        self._me = f"{_here()} {os.getpid()} {_started(os.getpid())} {uuid.uuid4().hex}"
        self._lines: dict[str, _Member] = {}
        self._task: asyncio.Task[None] | None = None

    async def join(self, line: str, limiter: Limiter) -> None:
        """Take part in the line's limits: returns when this process may send. `line` holds no secret."""
        mine = _Member(f"limits:{line}", limiter)
        limiter.name = line
        limiter.allot(0)
        learned = (await self._read(mine)).get(LEARNED)
        if learned is not None and learned["age"] < STALE:
            limiter.recall(learned)
            mine.learned = limiter.learned()
        await self._renew(mine)
        self._lines[line] = mine
        if self._task is None:
            self._task = asyncio.create_task(self._beats())
        while not mine.holds and self._lines.get(line) is mine:
            await asyncio.sleep(self._beat * POLL)
            await self._hear(mine)

    async def close(self) -> None:
        """Give back what this process held, and leave word of what it learned."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        lines, self._lines = self._lines, {}
        for mine in lines.values():
            if mine.fuse is not None:
                mine.fuse.cancel()
        with suppress(StoreError):  # then the notes run out by themselves
            for mine in lines.values():
                await self._leave_word(mine)
                await self._store.put_note(mine.space, self._me, None)

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(self._beat)
            for mine in list(self._lines.values()):
                try:
                    await self._renew(mine)
                    if mine.beat % LEARN_BEATS == 0:
                        await self._leave_word(mine)
                except StoreError:
                    self._mute(mine)

    async def _renew(self, mine: _Member) -> None:
        """One beat: say what is wanted, hear what the others say, and take a fair part."""
        self._look(mine)
        mine.beat += 1
        if mine.holds:
            await self._hear(mine)  # room is made before the newcomer hears that it was seen
        seen = {name: note["beat"] for name, note in mine.others.items() if note["wants"]}
        loop = asyncio.get_running_loop()
        began = loop.time()
        await self._store.put_note(mine.space, self._me, {"beat": mine.beat, "wants": mine.wants, "seen": seen})
        if mine.fuse is not None:
            mine.fuse.cancel()
        mine.fuse = loop.call_at(began + MISSED * self._beat, self._mute, mine)
        if not mine.holds:
            await self._hear(mine)  # after its own note: of two that come at once, at least one sees the other

    def _mute(self, mine: _Member) -> None:
        """The others do not hear this process: it sends again when they have seen a beat that is yet to come."""
        mine.holds, mine.asked = False, mine.beat + 1
        mine.limiter.allot(0)

    def _look(self, mine: _Member) -> None:
        limiter = mine.limiter
        busy = limiter.in_flight > 0 or limiter.waiting > 0 or limiter.activity != mine.activity
        mine.activity = limiter.activity
        mine.idle = 0 if busy else mine.idle + 1
        if mine.beat:
            before, mine.wants = mine.wants, mine.idle < MISSED
            if mine.wants and not before:  # others may have come meanwhile: as if it came anew
                mine.holds, mine.asked = False, mine.beat + 1

    async def _hear(self, mine: _Member) -> None:
        """Who is there now, and the part that is left. Notes of those that are gone for good are swept away."""
        notes = await self._read(mine)
        now, before, gone = time.monotonic(), mine.heard, []
        mine.heard, mine.others = {}, {}
        for name, note in notes.items():
            if name in (self._me, LEARNED):
                continue
            beat = note.get("beat")
            heard = before.get(name, (beat, now - max(0.0, note["age"])))
            if heard[0] != beat:
                heard = beat, now
            silent = now - heard[1]
            if _is_dead(name) or min(silent, note["age"]) > FORGOTTEN:
                gone.append(self._store.put_note(mine.space, name, None))
                continue
            mine.heard[name] = heard
            if silent < MISSED * self._beat and _is_whole(note):
                mine.others[name] = note
        self._divide(mine)
        await asyncio.gather(*gone)

    async def _read(self, mine: _Member) -> dict[str, dict[str, Any]]:
        """In a thread: a server may be slow, or away for minutes."""
        return await asyncio.to_thread(self._store.notes, mine.space)

    def _divide(self, mine: _Member) -> None:
        others = [note for note in mine.others.values() if note["wants"]]
        if not mine.wants:
            mine.holds = not others
        elif not mine.holds:
            mine.holds = all(note["seen"].get(self._me, 0) >= mine.asked for note in others)
        processes = len(others) + 1
        mine.limiter.allot(1 / processes if mine.holds else 0, processes)

    async def _leave_word(self, mine: _Member) -> None:
        learned = mine.limiter.learned()
        if learned and learned != mine.learned:
            mine.learned = learned
            await self._store.put_note(mine.space, LEARNED, learned)


def _is_whole(note: dict[str, Any]) -> bool:
    """Whether it says what a member says: who writes otherwise (another version, a damaged page) is not heard."""
    seen = note.get("seen")
    if not isinstance(seen, dict) or not all(isinstance(beat, int) for beat in seen.values()):
        return False
    return isinstance(note.get("beat"), int) and isinstance(note.get("wants"), bool)


@cache
def _here() -> str:
    """Where the number of a process means something: this machine since it was started, and this namespace of
    processes, if /proc shows that one. (The machine's name tells copies of a virtual machine apart, which were started
    as one.) What no other process has, if that cannot be told."""
    with suppress(OSError):
        if str(Path("/proc/self").readlink()) == str(os.getpid()):
            started = Path("/proc/sys/kernel/random/boot_id").read_text()
            return digest_of([os.uname().nodename, started, Path("/proc/self/ns/pid").stat().st_ino])[:32]
    return uuid.uuid4().hex


def _started(process: int) -> str:
    """When it was started, in ticks since the machine was; "ended" if only its parent has not noticed yet, "hidden" if
    it cannot be told."""
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()  # its name may hold anything
        return "ended" if fields[0] in (b"Z", b"X") else fields[19].decode()
    return "hidden"


def _is_dead(name: str) -> bool:
    """Whether the process behind a note is known to have ended: its number is free, or is another's by now."""
    where, *rest = name.split(" ")
    if where != _here() or len(rest) != 3:
        return False
    process, started = int(rest[0]), rest[1]
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's
        pass
    now = _started(process)
    return now != started and "hidden" not in (now, started)
