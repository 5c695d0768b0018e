"""What is left to do of a step: its inputs against what is kept, a row group at a time, the next read ahead."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from gristmill.core.store import Store
from gristmill.runs.folder import Inputs
from gristmill.runs.tables import Group, Row, Seen, as_numbers


class Job(NamedTuple):
    """A record that is to be done, as it lies on disk, and the key of its outcome."""

    key: str
    row: Row


@dataclass(frozen=True)
class Portion:
    """A row group: what is to be done, how many are done, the keys of those that failed for good, and how many are left
    to another run."""

    jobs: list[Job]
    kept: int
    failed: list[str]
    left: int


def outcome_keys(step: str, group: Group) -> list[str]:
    """Where the outcome of each record of a group is kept: one hash of what decides it and its digest."""
    before, keys = sha256(step.encode()), []
    for digest in group.column("digest"):
        key = before.copy()
        key.update(digest.encode())
        keys.append(key.hexdigest())
    return keys


class Feed:
    """Jobs in input order. Of what is done, nothing but digests is read. `again`: dead letters are to be done; `rest`:
    those that no attempt has done. `begin` is awaited with every row group before its jobs are handed out."""

    def __init__(
        self,
        inputs: Inputs,
        store: Store,
        key: str,
        *,
        reader: Executor,
        again: bool,
        rest: bool,
        begin: Callable[[Portion], Awaitable[None]],
    ) -> None:
        self.inputs = inputs
        self.store = store
        self.reader = reader
        self.again = again
        self.rest = rest
        self.begin = begin
        self.closed = False
        self._key = key
        self._seen = Seen() if len(inputs.outputs) > 1 else None  # a record may come by two ways
        self._groups = inputs.groups()
        self._jobs: deque[Job] = deque()
        self._ahead: asyncio.Future[Portion | None] | None = None
        self._one_reads = asyncio.Lock()

    def take(self) -> Job | None:
        """The next job, if one lies ready."""
        return self._jobs.popleft() if self._jobs else None

    async def more(self) -> Job | None:
        """The next job; None when there is none, or none is wanted any more."""
        async with self._one_reads:
            while not self._jobs:
                portion = None if self.closed else await self._next()
                if portion is None:
                    return None
                await self.begin(portion)
                self._jobs.extend(portion.jobs)
            return self._jobs.popleft()

    async def close(self) -> None:
        self.closed = True
        if self._ahead is not None:
            await asyncio.gather(self._ahead, return_exceptions=True)

    def keys(self, group: Group) -> list[str]:
        """Where the outcome of each record of a group is kept."""
        return outcome_keys(self._key, group)

    async def _next(self) -> Portion | None:
        loop = asyncio.get_running_loop()
        self._ahead = self._ahead or loop.run_in_executor(self.reader, self._read)
        portion = await asyncio.shield(self._ahead)
        self._ahead = loop.run_in_executor(self.reader, self._read) if portion is not None else None
        return portion

    def _read(self) -> Portion | None:
        group = next(self._groups, None)
        if group is None:
            return None
        keys = self.keys(group)
        kept = self.store.kept(keys)
        failed = [key for key, status in kept.items() if status == "failed"] if not self.again else []
        fresh = [True] * len(keys)
        if self._seen is not None:
            fresh = self._seen.fresh(as_numbers([key[:16] for key in keys])).tolist()
        new = [at for at, key in enumerate(keys) if fresh[at] and key not in kept]
        due = new if self.rest else []
        if self.again:
            due = sorted(due + [at for at, key in enumerate(keys) if fresh[at] and kept.get(key) == "failed"])
        rows = group.rows(due) if due else []
        jobs = [Job(keys[at], row) for at, row in zip(due, rows, strict=True)]
        left = 0 if self.rest else len(new)
        return Portion(jobs, len(keys) - len(due) - left, failed, left)
