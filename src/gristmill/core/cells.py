"""CSV as every room reads and writes it: what stands in a cell comes back as it was, however long it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from typing import IO, Any

LONGEST = 2**31 - 1
"""Characters of a cell. Python's own limit of 131,072 holds for the whole process, so it is set here alone; who wants
less bounds the lines that are read."""

Dialect = type[csv.Dialect] | csv.Dialect


def read_rows(lines: Iterable[str], dialect: Dialect = csv.excel, **more: Any) -> Iterator[list[str]]:
    csv.field_size_limit(LONGEST)
    return csv.reader(lines, dialect, **more)


def read_named(text: str, **more: Any) -> Iterator[dict[str, Any]]:
    """Each row by the names that the first one gives the columns."""
    csv.field_size_limit(LONGEST)
    return csv.DictReader(io.StringIO(text, newline=""), **more)


def write_cells(file: IO[str], rows: Iterable[Iterable[str]]) -> None:
    r"""Lines end with `\r\n`, as RFC 4180 has it: Python 3.11 quotes a `\r` only where it ends lines, too."""
    csv.writer(file, lineterminator="\r\n").writerows(rows)
