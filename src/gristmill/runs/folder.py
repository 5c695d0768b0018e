"""A run's folder: the truth about a run, made to be read by a stranger.

recipe.yaml     the recipe as it ran, everything merged
manifest.json   versions, hardware, seeds, prompts
events.ndjson   everything that happened, over all attempts
summary.json    how the last attempt ended, the funnel, what it cost
report.html     the run on one page
prompts/        every prompt that was used, named by its hash
stages/02-chunks/records.parquet   what a stage gave (id, type, parents, marks, origin, body), in input order
stages/02-chunks/rejects.parquet   what it dropped, each with its reason
stages/02-chunks/stage.json        its fingerprint and counts; a stage without it is not finished
checkpoints/<stage>/               weights, each folder with a manifest of its files
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.core.errors import ConfigError
from gristmill.core.files import atomic, link_tree
from gristmill.core.records import Record, from_row

RECORDS = pa.schema(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("parents", pa.list_(pa.string())),
        ("marks", pa.string()),
        ("origin", pa.string()),
        ("body", pa.string()),
    ]
)
REJECTS = pa.schema(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("status", pa.string()),  # rejected | failed | unreachable (will be asked again)
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("body", pa.string()),
    ]
)
BATCH = 1000


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
class Reject:
    """A dropped record as it is kept."""

    record: Record
    status: str
    reason: str
    detail: str = ""


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

    def __iter__(self) -> Iterator[Record]:
        return (from_row(row) for row in _rows(self.folder / "records.parquet"))

    def rejects(self) -> Iterator[dict[str, Any]]:
        return _rows(self.folder / "rejects.parquet")


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH):
            yield from batch.to_pylist()


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
    def stop_file(self) -> Path:
        """Its presence asks the process that runs this run to stop."""
        return self.path / "stop"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run; a second process that wants it is refused, with the holder named."""
        self.path.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                _lock(fd)
            except OSError as error:
                holder = os.pread(fd, 64, 0).decode() or "another process"
                raise ConfigError(
                    f"run {self.path.name} is running already (process {holder})",
                    "Watch it with `gristmill status`, or stop it with `gristmill stop`.",
                ) from error
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
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

    Records with the same id collapse into the first, so that nothing depends on who came twice.
    """

    def __init__(self, output: Output, counts: Counts) -> None:
        self.output = output
        self.counts = counts
        self._seen: set[str] = set()
        self._hash = hashlib.sha256()
        self._rows: list[dict[str, Any]] = []
        self._rejects: list[dict[str, Any]] = []

    def give(self, records: Iterable[Record]) -> None:
        for record in records:
            if record.id in self._seen:
                self.counts.duplicates += 1
                continue
            self._seen.add(record.id)
            self._hash.update(record.digest.encode())
            self._rows.append(record.to_row())
            self.counts.given += 1

    def drop(self, reject: Reject) -> None:
        self.counts.drop(reject.status, reject.reason)
        row = reject.record.to_row()
        self._rejects.append(
            {"id": row["id"], "type": row["type"], "status": reject.status, "reason": reject.reason}
            | {"detail": reject.detail, "body": row["body"]}
        )

    def finish(self, fingerprint: str, **meta: Any) -> Output:
        folder = self.output.folder
        (folder / "stage.json").unlink(missing_ok=True)  # of an earlier fingerprint: it must not vouch for new tables
        _write_table(folder / "records.parquet", self._rows, RECORDS)
        _write_table(folder / "rejects.parquet", self._rejects, REJECTS)
        data = {"fingerprint": fingerprint, "digest": self._hash.hexdigest(), "counts": vars(self.counts), **meta}
        with atomic(folder / "stage.json") as file:
            file.write(orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        return Output(folder)


def _write_table(path: Path, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    with atomic(path) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema), file, compression="zstd")


def reuse(source: Path, target: Output) -> Output:
    """Another run's finished stage as this run's own: the same files, linked."""
    link_tree(source, target.folder)
    return Output(target.folder)
