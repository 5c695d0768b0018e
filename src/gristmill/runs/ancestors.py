"""Records of finished stages, found by id where they lie: of each stage an index of ids is in memory, no more."""

from __future__ import annotations

import threading
from collections import OrderedDict
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.core.records import Record, from_row
from gristmill.runs.folder import Output
from gristmill.runs.tables import as_numbers, rows_of

K = TypeVar("K")
V = TypeVar("V")

TABLE_BYTES, RECORD_BYTES = 24 << 20, 8 << 20
"""What is remembered of row groups and of records. Stages keep the order of what they take, so the next record's
ancestors lie beside this one's, and a few row groups serve all of a stage."""


class _Recent(Generic[K, V]):
    """Values that were used lately, as many as fit into so many bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._size = 0
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()

    def get(self, key: K) -> V | None:
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: K, value: V, size: int) -> None:
        self._values[key] = value, size
        self._size += size
        while self._size > self.most and len(self._values) > 1:
            self._size -= self._values.popitem(last=False)[1][1]


class _Index:
    """Where in a stage's table an id stands: 12 bytes a row."""

    def __init__(self, output: Output) -> None:
        self._file = pq.ParquetFile(output.records)
        meta = self._file.metadata
        lengths = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
        self._starts = np.cumsum([0, *lengths])

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        parts = (self.read(group, ["id"]).column(0).to_pylist() for group in range(len(self._starts) - 1))
        ids = np.concatenate([np.empty(0, np.uint64), *map(as_numbers, parts)])
        order = np.argsort(ids).astype(np.uint32)
        return ids[order], order

    def place(self, number: int) -> tuple[int, int] | None:
        """Row group and row of an id."""
        ids, order = self._sorted
        at = int(np.searchsorted(ids, np.uint64(number)))
        if at == len(ids) or int(ids[at]) != number:
            return None
        row = int(order[at])
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        return group, row - int(self._starts[group])

    def read(self, group: int, columns: list[str] | None = None) -> pa.Table:
        return self._file.read_row_group(group, columns, use_threads=False)


class Records:
    """Of all finished stages, in order. Safe to ask from any thread."""

    def __init__(self) -> None:
        self.outputs: dict[str, Output] = {}
        self._indexes: dict[str, _Index] = {}
        self._tables: _Recent[tuple[str, int], pa.Table] = _Recent(TABLE_BYTES)
        self._records: _Recent[str, Record] = _Recent(RECORD_BYTES)
        self._lock = threading.Lock()

    def add(self, name: str, output: Output) -> None:
        self.outputs[name] = output

    def get(self, record_id: str) -> Record | None:
        """The record as the first of the stages gave it that did."""
        with self._lock:
            record = self._records.get(record_id)
            return record if record is not None else self._find(record_id)

    def _find(self, record_id: str) -> Record | None:
        number = int(record_id, 16)
        for name, output in self.outputs.items():
            index = self._indexes.get(name)
            if index is None:
                index = self._indexes[name] = _Index(output)
            place = index.place(number)
            if place is not None:
                (row,) = rows_of(self._table(name, index, place[0]).slice(place[1], 1))
                record = from_row(row)
                self._records.put(record_id, record, len(row["body"]) + 500)
                return record
        return None

    def _table(self, name: str, index: _Index, group: int) -> pa.Table:
        table = self._tables.get((name, group))
        if table is None:
            table = index.read(group)
            self._tables.put((name, group), table, table.nbytes)
        return table
