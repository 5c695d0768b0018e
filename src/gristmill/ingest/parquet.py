"""Rows of a Parquet file as JSON would say them: times as ISO 8601, decimals as text, NaN as null."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.core.errors import Reject

BATCH, BATCH_BYTES = 1000, 1 << 21  # rows decoded at a time, or fewer where rows are large
BUFFER = 1 << 16  # bytes read at once: without it whole column chunks are


def parquet_rows(file: IO[bytes], columns: list[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False) as table:
            yield from enumerate(_rows(table, columns), 1)
    except pa.ArrowException as error:
        raise Reject("damaged file", str(error)[:200]) from error


def _rows(table: pq.ParquetFile, columns: list[str] | None) -> Iterator[dict[str, Any]]:
    schema = table.schema_arrow
    if unknown := [name for name in columns or () if name not in schema.names]:
        raise Reject(f"no column {', '.join(unknown)}", f"It has: {', '.join(schema.names)}")
    chosen = schema if columns is None else [schema.field(name) for name in columns]
    if binary := [field.name for field in chosen if _holds(field.type, _is_binary)]:
        raise Reject(f"binary column {', '.join(binary)}", "Name the columns you need in `columns`.")
    mended = [field.name for field in chosen if _holds(field.type, _needs_words)]
    for batch in table.iter_batches(batch_size=_batch(table), columns=columns, use_threads=False):
        for row in batch.to_pylist():
            for name in mended:
                row[name] = _plain(row[name])
            yield row


def _batch(table: pq.ParquetFile) -> int:
    meta = table.metadata
    size = sum(meta.row_group(at).total_byte_size for at in range(meta.num_row_groups))
    return int(max(1, min(BATCH, BATCH_BYTES * meta.num_rows // max(1, size))))


def _holds(kind: pa.DataType, what: Callable[[pa.DataType], bool]) -> bool:
    """Whether a type, or one inside it, is such."""
    return what(kind) or any(_holds(kind.field(i).type, what) for i in range(kind.num_fields))


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def _needs_words(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_temporal(kind) or types.is_decimal(kind) or types.is_floating(kind) or types.is_map(kind))


def _plain(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return str(value)
        case list():
            return [_plain(item) for item in value]
        case tuple():
            return [_plain(item) for item in value]
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
    return value
