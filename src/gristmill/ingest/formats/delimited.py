"""CSV and TSV: one table; each row a line that names its columns."""

from __future__ import annotations

import csv
import io

from gristmill.core.cells import Dialect, read_rows
from gristmill.core.errors import Reject
from gristmill.ingest.formats.table import table_text
from gristmill.ingest.pieces import Content, Piece, clean, inline


def read(text: str) -> Content:
    text = clean(text)
    try:
        dialect: Dialect = csv.Sniffer().sniff(text[:8192], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    try:
        rows = [[inline(cell) for cell in row] for row in read_rows(io.StringIO(text), dialect)]
    except csv.Error as error:
        raise Reject("damaged csv", str(error)) from error
    rows = [row for row in rows if any(row)]
    if not rows:
        raise Reject("empty file")
    return Content("text/csv", [Piece("table", table_text(rows, header=_header(rows)))])


def _header(rows: list[list[str]]) -> bool:
    """A csv's first row names the columns unless one of its cells is empty, repeated or a number."""
    first = rows[0]
    return len(rows) > 1 and all(first) and len(set(first)) == len(first) and not any(_number(c) for c in first)


def _number(cell: str) -> bool:
    return cell.replace(".", "").replace(",", "").replace("-", "").isdigit()
