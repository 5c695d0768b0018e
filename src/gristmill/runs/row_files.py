"""Rows as files for other tools, however many there are: they are read once for their columns, and again to be written.

JSON lines keep every value as it is. A column of Parquet has one type: what is nested, or no text among texts, stands
there as JSON, and so does what is nested in CSV.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.core.cells import write_cells
from gristmill.core.files import atomic
from gristmill.core.records import Draft
from gristmill.runs.folder import Output

Row = dict[str, Any]
AT_ONCE = 1000
"""Rows of a Parquet row group."""

_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Rows:
    """What a stage gave as rows: the data of its drafts of that kind. Each iteration reads them again."""

    output: Output

    def __iter__(self) -> Iterator[Row]:
        return (dict(draft.data) for draft in self.output.only(Draft) if draft.kind == "row")

    def columns(self) -> dict[str, pa.DataType]:
        """Every column that any row has, as first met, with the type that holds all of its values."""
        kinds: dict[str, set[str]] = {}
        for row in self:
            for name, value in row.items():
                kinds.setdefault(name, set()).add(_kind(value))
        return {name: _type(found - {"none"}) for name, found in kinds.items()}


def write_rows(target: Path, rows: Rows) -> bool:
    """As the file's name says; False, and no file, where there is no row."""
    columns = rows.columns()
    if not columns:
        return False
    {".jsonl": _write_lines, ".csv": _write_csv, ".parquet": _write_parquet}[target.suffix](target, rows, columns)
    return True


def _write_lines(target: Path, rows: Rows, _: dict[str, pa.DataType]) -> None:
    with atomic(target) as file:
        file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)


def _write_csv(target: Path, rows: Rows, columns: dict[str, pa.DataType]) -> None:
    with atomic(target, "w") as file:
        write_cells(file, chain([columns], ([_cell(row.get(name)) for name in columns] for row in rows)))


def _write_parquet(target: Path, rows: Rows, columns: dict[str, pa.DataType]) -> None:
    schema = pa.schema(columns)
    with atomic(target) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        left = iter(rows)
        while part := list(islice(left, AT_ONCE)):
            cells = {name: [_value(row.get(name), kind) for row in part] for name, kind in columns.items()}
            writer.write_table(pa.table(cells, schema))


def _kind(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if -_LARGEST <= value <= _LARGEST else "json"
    return "float" if isinstance(value, float) else "text" if isinstance(value, str) else "json"


def _type(kinds: set[str]) -> pa.DataType:
    if kinds <= {"bool"} and kinds:
        return pa.bool_()
    if kinds <= {"int"} and kinds:
        return pa.int64()
    return pa.float64() if kinds <= {"int", "float"} and kinds else pa.string()


def _value(value: Any, kind: pa.DataType) -> Any:
    """A value as one of its column's type."""
    if value is None or isinstance(value, str):
        return value
    if pa.types.is_string(kind):
        return orjson.dumps(value).decode()
    return float(value) if pa.types.is_floating(kind) else value


def _cell(value: Any) -> str:
    """A value in a file that holds text alone."""
    return "" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()
