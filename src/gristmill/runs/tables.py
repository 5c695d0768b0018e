"""Records and rejects at rest: Parquet tables, written and read a row group at a time, so that neither knows how many
rows there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.core.files import atomic

pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own allocator keeps the most that it ever had

Row = dict[str, Any]
Ids = npt.NDArray[np.uint64]

LAYOUT = 2
"""Of the tables below. Part of a stage's fingerprint: a stage of another layout is made again, from what is kept."""

RECORDS = pa.schema(
    [
        ("id", pa.string()),
        ("type", pa.string()),
        ("parents", pa.list_(pa.string())),
        ("marks", pa.string()),
        ("origin", pa.string()),
        ("digest", pa.string()),  # of the whole record: a step's key is computed from it, without the record
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
        ("key", pa.string()),  # of the outcome in the store; none where a pass dropped it
        ("body", pa.string()),
    ]
)
ROWS, BYTES = 500, 1 << 20
"""A row group ends at whichever it reaches first; of the bytes, the records' bodies are counted."""

_REPEATING = ["type", "marks", "status", "reason"]
"""Columns with few values. A dictionary of the others would only cost memory."""


def give_back() -> None:
    """Memory that is free goes back to the system. The C library keeps it in the hope of more to come."""
    pa.default_memory_pool().release_unused()


class TableWriter:
    """A table that is there, whole, once `close` returns. Nothing is opened before there is a row or an end."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.schema = schema
        self._columns: list[list[Any]] = [[] for _ in schema]
        self._size = 0
        self._stack = ExitStack()
        self._parquet: pq.ParquetWriter | None = None

    def add(self, row: Row) -> None:
        for column, name in zip(self._columns, self.schema.names, strict=True):
            column.append(row[name])
        self._size += len(row["body"])
        if len(self._columns[0]) >= ROWS or self._size >= BYTES:
            self._flush()

    def close(self) -> None:
        with self._stack:
            self._flush()
            self._open().close()

    def abandon(self, error: BaseException) -> None:
        """Leave nothing behind. No harm once it is closed."""
        if self._parquet is not None:
            with suppress(OSError):  # it wants to write its footer, on a disk that may be full
                self._parquet.close()
        self._stack.__exit__(type(error), error, None)

    def _open(self) -> pq.ParquetWriter:
        if self._parquet is None:
            file = self._stack.enter_context(atomic(self.path))
            repeating = [name for name in self.schema.names if name in _REPEATING]
            self._parquet = pq.ParquetWriter(
                file, self.schema, compression="zstd", use_dictionary=repeating, write_statistics=False
            )
        return self._parquet

    def _flush(self) -> None:
        if not self._columns[0]:
            return
        arrays = [_array(column, field.type) for column, field in zip(self._columns, self.schema, strict=True)]
        self._open().write_table(pa.Table.from_arrays(arrays, schema=self.schema), row_group_size=ROWS)
        for column in self._columns:
            column.clear()
        self._size = 0


class Group:
    """One row group of a table."""

    def __init__(self, file: pq.ParquetFile, index: int) -> None:
        self._file = file
        self.index = index

    def __len__(self) -> int:
        return int(self._file.metadata.row_group(self.index).num_rows)

    def table(self) -> pa.Table:
        return self._file.read_row_group(self.index, use_threads=False)

    def column(self, name: str) -> list[Any]:
        values: list[Any] = self._file.read_row_group(self.index, [name], use_threads=False).column(0).to_pylist()
        return values

    def rows(self, at: Sequence[int]) -> list[Row]:
        """The rows at these positions within the group."""
        places = np.asarray(at, np.int64)
        return rows_of(self.table().take(pa.Array.from_buffers(pa.int64(), len(at), [None, pa.py_buffer(places)])))


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """A column of strings or lists of strings, from buffers: `pa.array` would import pandas wherever it is installed,
    55 MB and a third of a second for nothing."""
    count, missing = len(values), None
    if None in values:
        missing = pa.py_buffer(np.packbits([value is not None for value in values], bitorder="little"))
        values = ["" if value is None else value for value in values]
    if pa.types.is_list(kind):
        parts = [part for value in values for part in value]
        ends = pa.py_buffer(_ends(values))
        return pa.Array.from_buffers(kind, count, [None, ends], children=[_array(parts, kind.value_type)])
    encoded = [value.encode() for value in values]
    return pa.Array.from_buffers(kind, count, [missing, pa.py_buffer(_ends(encoded)), pa.py_buffer(b"".join(encoded))])


def _ends(values: Sequence[Sequence[Any]]) -> npt.NDArray[np.int32]:
    ends = np.zeros(len(values) + 1, np.int32)
    np.cumsum([len(value) for value in values], out=ends[1:])
    return ends


def groups(path: Path) -> Iterator[Group]:
    with pq.ParquetFile(path) as file:
        yield from (Group(file, index) for index in range(file.num_row_groups))


def rows(path: Path) -> Iterator[Row]:
    """All rows of a table, whatever layout it has. A row group at a time: they are ended by bytes, too."""
    for group in groups(path):
        yield from rows_of(group.table())


def rows_of(part: pa.Table | pa.RecordBatch) -> list[Row]:
    names = part.schema.names
    return [dict(zip(names, row, strict=True)) for row in zip(*[c.to_pylist() for c in part.columns], strict=True)]


def as_numbers(ids: Sequence[str]) -> Ids:
    """Record ids, 16 hexadecimal digits each, in 8 bytes each."""
    return np.frombuffer(bytes.fromhex("".join(ids)), dtype=">u8").astype(np.uint64)


class Seen:
    """The ids met so far, 8 bytes each: sorted runs, each at least twice as long as the next."""

    def __init__(self) -> None:
        self._runs: list[Ids] = []

    def fresh(self, ids: Ids) -> npt.NDArray[np.bool_]:
        """Which of these are met for the first time, those that repeat among themselves counted once."""
        new = np.zeros(len(ids), np.bool_)
        new[np.unique(ids, return_index=True)[1]] = True
        for run in self._runs:
            at = np.searchsorted(run, ids)
            at[at == len(run)] = 0
            new &= run[at] != ids
        added = np.sort(ids[new])
        while self._runs and len(self._runs[-1]) < 2 * len(added):
            added = np.sort(np.concatenate([self._runs.pop(), added]))
        if len(added):
            self._runs.append(added)
        return new
