"""Run a step over its records: every outcome is kept, and the outputs are written in input order once all are there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from gristmill.core.errors import Cancelled, Failure, StageFailure, boundary
from gristmill.core.errors import Reject as Rejection
from gristmill.core.logs import ROW, log
from gristmill.core.records import digest_of, from_row
from gristmill.core.store import Status
from gristmill.runs.blame import stopped_at
from gristmill.runs.context import Context, Current
from gristmill.runs.crew import Crew
from gristmill.runs.feed import Feed, Job, Portion
from gristmill.runs.figures import counted
from gristmill.runs.folder import Counts, Inputs, Writer
from gristmill.runs.plan import Node
from gristmill.runs.tables import BYTES, ROWS, Group

FIRST = 10
"""Records after which a stage stops if most of them failed: what fails like that is no single record's fault."""

JUDGED_AFTER = 20
"""Records of a stage before its share of failures is judged."""

UNWRITTEN, OVERHEAD = 1 << 20, 1000
"""Bytes of results that may wait to be written when another row group is begun, and what each takes besides its own:
steps can be faster than a disk."""

CODE_ONLY_WIDTH = 16
"""Records of a stage without a model that are under way at once; more only helps where a step waits (reading files)."""


class Undone(Cancelled):
    """A retry has come to a stage that is not finished: it has sent what had failed there, and leaves the rest."""

    def __init__(self, stage: str, left: int, *, sent: int = 0, failed: int = 0) -> None:
        again = f"{counted(sent, 'record')} sent again" + (f", {failed} failed again" if failed else "")
        what = f"{again}; nothing else" if sent else "nothing"
        rest = f" and has {counted(left, 'record')} to do" if left else ""
        super().__init__(
            f"stage {stage}: {what} was sent. It is not finished{rest}; `gristmill run` with its recipe goes on."
        )


def step_key(node_key: dict[str, Any]) -> str:
    """What all outcomes of a step are kept under, each with its record's digest."""
    return digest_of(["step", node_key])


@dataclass
class Step:
    """One step's run over its inputs. With `retry`, what failed for good is sent again too; without `rest`, nothing
    else is, and the stage stays unfinished."""

    current: Current
    node: Node
    node_key: dict[str, Any]
    context: Context
    counts: Counts
    inputs: Inputs
    retry: bool = False
    rest: bool = True

    def __post_init__(self) -> None:
        self.code = self.node.stage.load()
        self.store = self.current.workspace.store
        self.guard = boundary(self.node.kind)
        self.total = len(self.inputs)
        self.done = self.failures = self.waiting = self.sent = self.left = 0
        self.lost: dict[str, tuple[str, str]] = {}  # key -> reason and words, not kept: the next run asks again
        self.last_error: StageFailure | None = None
        self.last_failed = ""  # its key
        key = step_key(self.node_key)
        reader = self.current.reader
        self.feed = Feed(
            self.inputs, self.store, key, reader=reader, again=self.retry, rest=self.rest, begin=self._begin
        )
        self.stopped = Cancelled("stopped", "Run the same command again to go on.")
        self.crew = Crew(self.feed, self._one, width=self._width, pulse=self._pulse)

    async def run(self, writer: Writer) -> None:
        """Every record through the step, then every outcome to the writer, in input order."""
        self.counts.taken = self.total
        try:
            await self.crew.run()
        finally:
            await self.store.flush()
            with suppress(OSError):  # a full disk: the error that ends the stage says so
                self._show(last=True)
        if self.current.stopping():
            raise self.stopped
        self._judge(final=True)
        if self.left:
            raise Undone(self.node.name, self.left, sent=self.sent, failed=self.failures)
        await asyncio.get_running_loop().run_in_executor(self.current.reader, self._write, writer)

    def _width(self) -> int:
        specs = [self.current.plan.recipe.models[role] for role in self.node.roles]
        width = self.current.client.window(specs) if specs else CODE_ONLY_WIDTH
        return min(width, self.total)

    def _pulse(self) -> None:
        self.current.winding_up = self.crew.failed
        if self.current.stopping():
            self.crew.end()
        self._show()

    def _show(self, *, last: bool = False) -> None:
        self.context.meter(self.done, self.total, {"failed": self.failures}, last=last)

    async def _begin(self, portion: Portion) -> None:
        """Failures of earlier attempts count: a run that stopped at too many does not creep on by being run again."""
        if self.waiting > UNWRITTEN:
            self.waiting = 0
            await self.store.flush()
        self.done += portion.kept
        self.left += portion.left
        self.sent += len(portion.jobs)
        if portion.failed:
            self.failures += len(portion.failed)
            self.last_failed = portion.failed[-1]
            self._judge()

    async def _one(self, job: Job) -> None:
        """Do one record and keep what became of it. One that could not be asked is not kept: the next run asks."""
        status: Status = "given"
        ROW.set(job.row["id"])
        try:
            with self.guard:
                made = await self.code(self.node.config, from_row(job.row), self.context)
                value = orjson.dumps({"records": [record.to_row() for record in made]})
        except Cancelled as told:  # it asked for more while the run was stopping: the next run begins it again
            self.stopped = max(self.stopped, told, key=lambda said: len(said.message))  # what is left under way is told
            return
        except Rejection as reject:
            status, value = "rejected", orjson.dumps({"reject": [reject.reason, reject.detail]})
        except StageFailure as failed:
            failure = failed.failure
            status, value = "failed", orjson.dumps({"failure": [failure.reason, failure.error]})
            self.failures += 1
            self.last_error = failed
            log("unreachable" if failure.transient else "dead letter", reason=failure.reason, detail=failure.error)
            if failure.transient:
                self.lost[job.key] = failure.reason, failure.error
        if job.key not in self.lost:
            self.store.keep_result(job.key, value, status=status)
            self.waiting += OVERHEAD + len(value)
        self.done += 1
        if self.failures:
            self._judge()

    def _judge(self, *, final: bool = False) -> None:
        """Past `max_failures`, or when most of the first records fail, the stage stops: going on would only fail more.
        Dead letters that are sent again are judged at the end: they are those that failed before."""
        most, failures = self.node.config.max_failures, self.failures
        done = self.total - self.left if final else self.done
        if not failures or (self.retry and not final):
            return
        if final and most and failures < done < JUDGED_AFTER:
            return  # too few to judge by a share, and some went well
        early = not final and most < 1 and FIRST <= done < JUDGED_AFTER and failures * 2 > done
        judged = final or done >= JUDGED_AFTER or most == 0
        if early or (judged and failures > most * done):
            self.crew.end()
            last = self.last_error or self._kept_failure(self.last_failed)
            run = self.current.folder.path.name
            raise stopped_at(self.node.name, run, failures, done, last, early=early) from last.__cause__

    def _kept_failure(self, key: str) -> StageFailure:
        reason, words = orjson.loads(self.store.results([key])[key])["failure"]
        return StageFailure(Failure(self.node.kind, words, False, reason))

    def _write(self, writer: Writer) -> None:
        """All outcomes, as rows: what is only copied is not made into records. In a thread."""
        at_once = ROWS
        for group in self.inputs.groups():
            keys = self.feed.keys(group)
            start = 0
            while start < len(keys):
                if self.current.stop.is_set():
                    raise Cancelled("stopped", "Run the same command again to go on.")
                part = keys[start : start + at_once]
                kept = self.store.results(part)
                self._write_part(writer, group, start, part, kept)
                start += len(part)
                size = sum(map(len, kept.values())) or 1
                at_once = max(8, min(ROWS, len(part) * BYTES // size))  # a result may be a whole book

    def _write_part(self, writer: Writer, group: Group, start: int, keys: list[str], kept: dict[str, bytes]) -> None:
        dropped: list[tuple[int, str, str, tuple[str, str]]] = []
        for at, key in enumerate(keys):
            outcome = orjson.loads(kept[key]) if key in kept else {}
            if "records" in outcome:
                writer.give(outcome["records"])
            elif "reject" in outcome:
                dropped.append((start + at, key, "rejected", outcome["reject"]))
            elif "failure" in outcome and key not in self.lost:
                dropped.append((start + at, key, "failed", outcome["failure"]))
            else:
                dropped.append((start + at, key, "unreachable", self.lost.get(key, ("not asked", ""))))
        if dropped:
            rows = group.rows([place for place, *_ in dropped])
            for row, (_, key, status, said) in zip(rows, dropped, strict=True):
                writer.drop(row, status, *said, key=key)
