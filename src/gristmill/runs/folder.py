"""A run's folder: the truth about a run, made to be read by a stranger.

recipe.yaml     the recipe as it ran, everything merged
manifest.json   versions, hardware, seeds, prompts
events.ndjson   everything that happened, over all attempts
summary.json    how the last attempt ended, the funnel, what it cost
report.html     the run on one page
prompts/        every prompt that was used, named by its hash
stages/02-chunks/records.parquet   what a stage gave (id, type, parents, marks, origin, digest, body), in input order
stages/02-chunks/rejects.parquet   what it dropped, each with its reason and the key of its outcome in the store
stages/02-chunks/stage.json        its fingerprint and counts; a stage without it is not finished
checkpoints/<stage>/               weights, each folder with a manifest of its files
training/<stage>/                  what a training said of itself: mask report, memory plan, metrics, samples
sinks/<name>/                      what a tracker keeps here
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import orjson

from gristmill.core.errors import ConfigError
from gristmill.core.files import atomic, link_tree
from gristmill.core.records import Record, digest_of, from_row
from gristmill.core.store import Holder
from gristmill.runs.tables import BYTES, RECORDS, REJECTS, ROWS, Group, Row, Seen, TableWriter, as_numbers, groups, rows

R = TypeVar("R", bound=Record)

TRAINING = "training"
"""Folder of what trainings said of themselves."""


@dataclass
class Counts:
    """One line of the funnel."""

    taken: int = 0
    given: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    failed: dict[str, int] = field(default_factory=dict)
    unreachable: int = 0
    duplicates: int = 0  # records that another record of the same stage equals
    more: dict[str, float] = field(default_factory=dict)  # calls, tokens, invalid, truncated, and what the stage counts

    def drop(self, status: str, reason: str) -> None:
        if status == "unreachable":
            self.unreachable += 1
            return
        counts = self.rejected if status == "rejected" else self.failed
        counts[reason] = counts.get(reason, 0) + 1


@dataclass(frozen=True)
class Output:
    """What a finished stage left in its folder."""

    folder: Path

    @cached_property
    def meta(self) -> dict[str, Any]:
        path = self.folder / "stage.json"
        return orjson.loads(path.read_bytes()) if path.exists() else {}

    @property
    def digest(self) -> str:
        return str(self.meta["digest"])

    @property
    def count(self) -> int:
        return int(self.meta["counts"]["given"])

    @property
    def dead_letters(self) -> int:
        """Records that a model, or the stage's code, could not do anything with: `gristmill retry` sends them again."""
        counts = self.meta["counts"]
        return int(sum(counts["failed"].values()) + counts["unreachable"])

    @property
    def records(self) -> Path:
        return self.folder / "records.parquet"

    def __iter__(self) -> Iterator[Record]:
        return map(from_row, rows(self.records))

    def only(self, kind: type[R], *, most: int | None = None) -> Iterator[R]:
        """Its records of one type; of the others, nothing but the type is read. `most`: so many rows, spread evenly."""
        every = 1 if most is None else max(1, -(-self.count // most))
        for group in groups(self.records):
            at = [place for place, name in enumerate(group.column("type")) if name == kind.type][::every]
            for row in group.rows(at) if at else ():
                yield cast(R, from_row(row))

    def rejects(self) -> Iterator[Row]:
        return rows(self.folder / "rejects.parquet")


class Inputs:
    """The records that a stage takes, in order. They lie on disk: each iteration reads them again, one by one."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self.outputs = outputs

    @property
    def digest(self) -> str:
        return digest_of([output.digest for output in self.outputs])

    def __len__(self) -> int:
        return sum(output.count for output in self.outputs)

    def __iter__(self) -> Iterator[Record]:
        for output in self.outputs:
            yield from output

    def groups(self) -> Iterator[Group]:
        for output in self.outputs:
            yield from groups(output.records)


@dataclass(frozen=True)
class RunFolder:
    path: Path

    def stage(self, index: int, name: str) -> Output:
        return Output(self.path / "stages" / f"{index + 1:02d}-{name}")

    def outputs(self) -> dict[str, Output]:
        """Finished stages by node name, in order."""
        folders = sorted(p.parent for p in self.path.glob("stages/[0-9]*/stage.json"))
        return {folder.name.partition("-")[2]: Output(folder) for folder in folders}

    @property
    def manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = orjson.loads((self.path / "manifest.json").read_bytes())
        return manifest

    @property
    def summary(self) -> dict[str, Any]:
        """How the last attempt ended; empty where none has come to an end."""
        path = self.path / "summary.json"
        return orjson.loads(path.read_bytes()) if path.exists() else {}

    @property
    def dead_letters(self) -> int:
        return sum(output.dead_letters for output in self.outputs().values())

    @property
    def stop_file(self) -> Path:
        """Its presence asks the process that runs this run to stop."""
        return self.path / "stop"

    def begin(self) -> None:
        """For the holder of the run: nothing is left of how the last attempt ended, or of what it was writing."""
        self.stop_file.unlink(missing_ok=True)
        (self.path / "summary.json").unlink(missing_ok=True)
        for left in self.path.glob("stages/*/.*.tmp"):
            left.unlink(missing_ok=True)
        for half in (*self.path.glob("stages/.*.tmp"), *self.path.glob("checkpoints/.*.tmp")):
            shutil.rmtree(half)  # in a container the next process may have the same number, and want the same name

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run on this machine; a second process that wants it is refused, with the holder named."""
        self.path.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                _lock(fd)
            except OSError as error:
                raise ConfigError(
                    f"run {self.path.name} is running already ({_holder(fd)})",
                    "Watch it with `gristmill status`, or stop it with `gristmill stop`.",
                ) from error
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(Holder.this()).encode(), 0)
            yield
        finally:
            os.close(fd)

    def running(self) -> bool:
        try:
            fd = os.open(self.path / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False


def _holder(fd: int) -> str:
    return os.pread(fd, 200, 0).decode() or "another process"


def _lock(fd: int) -> None:
    """Take the lock; a `status` that looks at it holds it for an instant, so try for half a second."""
    for _ in range(5):
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.1)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Writer:
    """Writes a stage's records and rejects as they come; `finish` makes them the stage's output, all at once.

    Records with the same id collapse into the first, so that nothing depends on who came twice. What is under way
    when it is left without `finish` is gone.
    """

    def __init__(self, output: Output, counts: Counts) -> None:
        self.output = output
        self.counts = counts
        self._records = TableWriter(output.records, RECORDS)
        self._rejects = TableWriter(output.folder / "rejects.parquet", REJECTS)
        self._seen = Seen()
        self._hash = hashlib.sha256()
        self._waiting: list[Row] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if error is not None:
            self._records.abandon(error)
            self._rejects.abandon(error)

    def give(self, given: Iterable[Row]) -> None:
        """Records as rows: no model is built of what is only copied."""
        for row in given:
            self._waiting.append(row)
            self._size += len(row["body"])
            if len(self._waiting) == ROWS or self._size >= BYTES:
                self._settle()

    def drop(self, row: Row, status: str, reason: str, detail: str = "", *, key: str | None = None) -> None:
        """A record that goes no further, by its row; `key` is that of the outcome in the store."""
        self.counts.drop(status, reason)
        self._rejects.add({**row, "status": status, "reason": reason, "detail": detail, "key": key})

    def finish(self, fingerprint: str, **meta: Any) -> Output:
        folder = self.output.folder
        self._settle()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stage.json").unlink(missing_ok=True)  # of an earlier fingerprint: it must not vouch for new tables
        self._records.close()
        self._rejects.close()
        data = {"fingerprint": fingerprint, "digest": self._hash.hexdigest(), "counts": vars(self.counts), **meta}
        with atomic(folder / "stage.json") as file:
            file.write(orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        return Output(folder)

    def _settle(self) -> None:
        """Sort out those that came before, a batch at a time."""
        if not self._waiting:
            return
        fresh = self._seen.fresh(as_numbers([row["id"] for row in self._waiting])).tolist()
        for row, new in zip(self._waiting, fresh, strict=True):
            if new:
                self._hash.update(row["digest"].encode())
                self._records.add(row)
        self.counts.given += sum(fresh)
        self.counts.duplicates += len(fresh) - sum(fresh)
        self._waiting, self._size = [], 0


def reuse(source: Path, target: Output) -> Output:
    """Another run's finished stage as this run's own: the same files, linked."""
    link_tree(source, target.folder)
    return Output(target.folder)
