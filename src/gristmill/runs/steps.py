"""Run a step over its records: bounded workers over one iterator, every outcome durable, outputs in input order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import orjson

from gristmill.core.errors import Cancelled, Failure, GristmillError, ProviderError, StageFailure, boundary
from gristmill.core.errors import Reject as Rejection
from gristmill.core.records import Record, digest_of, from_row
from gristmill.core.store import Store
from gristmill.runs.context import Context, Current
from gristmill.runs.folder import BATCH, Counts, Reject, Writer
from gristmill.runs.plan import Node

JUDGED_AFTER = 20
"""Records of a stage before its share of failures is judged."""


@dataclass(frozen=True)
class Job:
    record: Record
    key: str


@dataclass
class Step:
    """One step's run over its inputs."""

    current: Current
    node: Node
    node_key: dict[str, Any]
    context: Context
    counts: Counts
    inputs: list[Record]
    width: int

    def __post_init__(self) -> None:
        self.code = self.node.stage.load()
        self.store: Store = self.current.workspace.store
        self.unreachable: dict[str, str] = {}  # key -> error, not kept: the next run asks again
        self.done = self.failures = 0
        self.last_error: StageFailure | None = None
        self.ended = False  # one worker is through: nothing is left, or the run stops

    async def run(self, writer: Writer) -> None:
        """Every record through the step, then every outcome to the writer, in input order."""
        self.counts.taken = len(self.inputs)
        jobs = self._jobs_left()
        workers = [asyncio.create_task(self._work(jobs)) for _ in range(self.width)]
        try:
            await asyncio.wait(workers)  # when one fails, the others still keep what they are being answered
        finally:
            for worker in workers:
                worker.cancel()
            ends = await asyncio.gather(*workers, return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        if self.current.stopping():
            raise Cancelled("stopped", "Run the same command again to go on.")
        self._judge(final=True)
        for keys in _batches(self._jobs()):
            kept = self.store.results([job.key for job in keys])
            for job in keys:
                self._write(writer, job, kept.get(job.key))

    def _jobs(self) -> Iterator[Job]:
        return (Job(r, digest_of(["step", self.node_key, r.digest])) for r in self.inputs)

    def _jobs_left(self) -> Iterator[Job]:
        """Jobs whose outcome is not in the store; looks them up a batch at a time, as the workers come for more."""
        for batch in _batches(self._jobs()):
            kept = self.store.results([job.key for job in batch])
            fresh: set[str] = set()
            for job in batch:
                if job.key in kept or job.key in fresh:
                    self._remember(kept.get(job.key, b""))
                    self._tick()
                else:
                    fresh.add(job.key)
                    yield job

    def _remember(self, kept: bytes) -> None:
        """Failures of earlier attempts count: a run that stopped at too many does not creep on by being run again."""
        if kept.startswith(b'{"failure"'):  # as `_one` gives it; the rest need not be parsed for this
            self.failures += 1
            failure = Failure(self.node.kind, str(orjson.loads(kept)["failure"]), transient=False)
            self.last_error = StageFailure(failure)

    async def _work(self, jobs: Iterator[Job]) -> None:
        try:
            for job in jobs:
                if self.ended or self.current.stopping():
                    return
                outcome = await self._one(job)
                if outcome is not None:
                    await self.store.put_result(job.key, orjson.dumps(outcome))
                self._tick()
                self._judge()
        finally:
            self.ended = True

    async def _one(self, job: Job) -> dict[str, Any] | None:
        """What became of one record, as it is kept; None when it could not be asked and is to be asked again."""
        try:
            with boundary(self.node.kind):
                records = await self.code(self.node.config, job.record, self.context)
                return {"records": [r.to_row() for r in records]}
        except Cancelled:
            return None  # it asked for more while the run was stopping: the next run begins it again
        except Rejection as reject:
            return {"reject": [reject.reason, reject.detail]}
        except StageFailure as failed:
            self.failures += 1
            self.last_error = failed
            if not failed.failure.transient:
                return {"failure": failed.failure.error}
            self.unreachable[job.key] = failed.failure.error
            return None

    def _tick(self) -> None:
        self.done += 1
        self.context.progress(self.done, len(self.inputs), failed=self.failures)

    def _judge(self, *, final: bool = False) -> None:
        """Past `max_failures` the stage stops: going on would only fail more."""
        done = self.done if not final else len(self.inputs)
        most = self.node.config.max_failures
        enough = final or self.done >= JUDGED_AFTER or most == 0
        if not self.last_error or not enough or self.failures <= most * done:
            return
        if final and most and self.failures < done < JUDGED_AFTER:
            return  # too few to judge by a share, and some went well
        raise _stopped(self.node, self.failures, done, self.last_error) from self.last_error.__cause__

    def _write(self, writer: Writer, job: Job, kept: bytes | None) -> None:
        if kept is None:
            writer.drop(Reject(job.record, "unreachable", self.unreachable.get(job.key, "not asked")))
            return
        outcome = orjson.loads(kept)
        if "records" in outcome:
            writer.give(from_row(row) for row in outcome["records"])
        elif "reject" in outcome:
            writer.drop(Reject(job.record, "rejected", *outcome["reject"]))
        else:
            writer.drop(Reject(job.record, "failed", outcome["failure"].partition(":")[0], outcome["failure"]))


def _stopped(node: Node, failures: int, done: int, last: StageFailure) -> GristmillError:
    cause = last.__cause__
    said = f"stage {node.name} stopped: {failures} of {done} records failed; the last: {last.failure.error}"
    hint = getattr(cause, "hint", "") or "See `gristmill show RUN rejects`; what was answered is kept."
    if isinstance(cause, ProviderError):
        return ProviderError(said, hint)
    return type(cause)(said, hint) if isinstance(cause, GristmillError) else GristmillError(said, hint)


def _batches(jobs: Iterator[Job]) -> Iterator[list[Job]]:
    while batch := list(islice(jobs, BATCH)):
        yield batch
