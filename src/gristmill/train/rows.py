"""Files of rows, one a step, that only grow: but for what a training that goes on from an earlier step cuts off."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.files import atomic

METRICS, TABLE = "metrics.ndjson", "metrics.csv"

Row = Mapping[str, float | int | str]


class MetricFiles:
    """Rows in two files that only grow, but for what a resume cuts off."""

    def __init__(self, folder: Path, *, at: int) -> None:
        self.lines, self.table = folder / METRICS, folder / TABLE
        rows = cut_back(self.lines, at=at)
        self._columns: list[str] = []
        self._widen(rows)

    def add(self, row: Row) -> None:
        with self.lines.open("ab") as file:
            file.write(orjson.dumps(row) + b"\n")
        if row.keys() <= set(self._columns):
            with self.table.open("a", encoding="utf-8", newline="") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:  # a name that was not there before: the first step, the first validation
            self._widen(read_rows(self.lines))

    def sync(self) -> None:
        for path in (self.lines, self.table):
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def _widen(self, rows: list[dict[str, Any]]) -> None:
        """The table anew, with every name that any row has."""
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        with atomic(self.table, "w") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The whole lines of such a file; one that a kill tore is none."""
    raw = path.read_bytes() if path.exists() else b""
    return [orjson.loads(line) for line in raw[: raw.rfind(b"\n") + 1].splitlines()]


def cut_back(path: Path, *, at: int) -> list[dict[str, Any]]:
    """Leave the rows up to a step, and give them."""
    rows = [row for row in read_rows(path) if row["step"] <= at]
    with atomic(path) as file:
        file.writelines(orjson.dumps(row) + b"\n" for row in rows)
    return rows
