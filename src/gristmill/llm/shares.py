"""Limits shared by all processes of a workspace that use the same line (provider, model and key).

Every process keeps a note per line in the store and renews it about once a second: that it is there, whether it wants
to send, and which others it has seen. Those that want to send divide the line's limits evenly. Who comes anew sends
nothing until every other has seen it and made room; who has sent nothing for a while gives its part up. A process that
was killed is forgotten after five missed beats, and at once by those who can see that it has ended.

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
from gristmill.core.store import Store
from gristmill.llm.limiter import Limiter

BEAT = 1.0  # seconds between renewals
MISSED = 5  # beats without a sign after which a process is gone, or without a request after which it gives up its part
POLL = 0.2  # of a beat: how often a newcomer looks whether there is room
LEARNED = "learned"  # name of the note that outlives its writer
LEARN_BEATS = 30
STALE = 24 * 3600.0  # seconds; what was learned longer ago is no news


@dataclass(eq=False)
class _Line:
    """A line as this process takes part in it."""

    space: str
    limiter: Limiter
    beat: int = 0
    wants: bool = True
    asked: int = 1  # the beat that first said so
    holds: bool = False  # all others have seen that beat, and made room
    idle: int = 0  # beats without a request
    activity: float = 0.0
    heard: dict[str, tuple[int, float]] = field(default_factory=dict)  # others: their last beat, and when it came
    learned: dict[str, Any] = field(default_factory=dict)


class Shares:
    """One per client. A line joins before its first request; `close` gives everything back, and all may join again."""

    def __init__(self, store: Store, *, beat: float = BEAT) -> None:
        self._store = store
        self._beat = beat
        self._me = f"{_here()} {os.getpid()} {uuid.uuid4().hex}"
        self._lines: dict[str, _Line] = {}
        self._task: asyncio.Task[None] | None = None

    async def join(self, line: str, limiter: Limiter) -> None:
        """Take part in the line's limits: returns when this process may send. `line` holds no secret."""
        mine = _Line(f"limits:{line}", limiter)
        limiter.name = line
        limiter.allot(0)
        learned = self._store.notes(mine.space).get(LEARNED)
        if learned is not None and learned["age"] < STALE:
            limiter.recall(learned)
            mine.learned = limiter.learned()
        await self._renew(mine)
        self._lines[line] = mine
        if self._task is None:
            self._task = asyncio.create_task(self._beats())
        while not mine.holds:
            await asyncio.sleep(self._beat * POLL)
            self._divide(mine)

    async def close(self) -> None:
        """Give back what this process held, and leave word of what it learned."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        lines, self._lines = self._lines, {}
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
                except StoreError:  # others will soon take this process for dead: it must not send
                    mine.holds = False
                    mine.limiter.allot(0)

    async def _renew(self, mine: _Line) -> None:
        """One beat: say what is wanted, hear what the others say, and take a fair part."""
        self._look(mine)
        mine.beat += 1
        if mine.holds:
            self._divide(mine)  # room is made before the newcomer hears that it was seen
        seen = {name: note["beat"] for name, note in self._others(mine).items() if note["wants"]}
        told = {"beat": mine.beat, "wants": mine.wants, "seen": seen}
        await self._store.put_note(mine.space, self._me, told)
        self._divide(mine)

    def _look(self, mine: _Line) -> None:
        limiter = mine.limiter
        busy = limiter.in_flight > 0 or limiter.waiting > 0 or limiter.activity != mine.activity
        mine.activity = limiter.activity
        mine.idle = 0 if busy else mine.idle + 1
        if mine.beat:
            before, mine.wants = mine.wants, mine.idle < MISSED
            mine.asked = mine.asked if before else mine.beat + 1

    def _others(self, mine: _Line) -> dict[str, dict[str, Any]]:
        """The notes of the others that are alive."""
        now, alive = time.monotonic(), {}
        for name, note in self._store.notes(mine.space).items():
            if name in (self._me, LEARNED) or _is_dead(name):
                continue
            before = mine.heard.get(name)
            if before is None:
                before = mine.heard[name] = note["beat"], now - max(0.0, note["age"])
            elif before[0] != note["beat"]:
                before = mine.heard[name] = note["beat"], now
            if now - before[1] < MISSED * self._beat:
                alive[name] = note
        return alive

    def _divide(self, mine: _Line) -> None:
        others = [note for note in self._others(mine).values() if note["wants"]]
        if not mine.wants:
            mine.holds = not others
        elif not mine.holds:
            mine.holds = all(note["seen"].get(self._me, 0) >= mine.asked for note in others)
        processes = len(others) + 1
        mine.limiter.allot(1 / processes if mine.holds else 0, processes)

    async def _leave_word(self, mine: _Line) -> None:
        learned = mine.limiter.learned()
        if learned and learned != mine.learned:
            mine.learned = learned
            await self._store.put_note(mine.space, LEARNED, learned)


@cache
def _here() -> str:
    """This machine since it was started, and which of its processes can be seen from here; what no other has if that
    cannot be told."""
    with suppress(OSError):
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{started}/{Path('/proc/self/ns/pid').stat().st_ino}"
    return uuid.uuid4().hex


def _is_dead(name: str) -> bool:
    """Whether the process behind a note is known to have ended."""
    where, _, rest = name.partition(" ")
    if where != _here():
        return False
    try:
        os.kill(int(rest.partition(" ")[0]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # somebody else's, and alive
        return False
    return False
