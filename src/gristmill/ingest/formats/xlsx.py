"""Excel: a sheet is a page and a heading; its rows a table. Values as last computed; hidden sheets are left out."""

from __future__ import annotations

import datetime
import io
import warnings

from gristmill.core.errors import Reject
from gristmill.ingest.archive import open_zip
from gristmill.ingest.formats.table import table_text
from gristmill.ingest.pieces import Content, Piece, inline

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"


def read(data: bytes, *, max_bytes: int, max_pages: int) -> Content:
    import openpyxl

    open_zip(data, max_bytes=max_bytes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # openpyxl's notes on styles and extensions it does not keep
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
    if len(book.worksheets) > max_pages:
        raise Reject(f"more than {max_pages} pages", f"{len(book.worksheets)} sheets")
    pieces: list[Piece] = []
    for number, sheet in enumerate(book.worksheets, 1):
        if sheet.sheet_state != "visible":
            continue
        sheet.reset_dimensions()  # the size a file claims may be a million empty rows
        rows = [
            [_shown(value) for value in row] for row in sheet.iter_rows(values_only=True) if any(_shown(v) for v in row)
        ]
        if rows:
            pieces.append(Piece("heading", inline(sheet.title), 1, ((0, number),)))
            pieces += [Piece("table", text, pages=((0, number),)) for text in _tables(rows)]
    return Content(MEDIA_TYPE, pieces, title=book.properties.title or "")


def _tables(rows: list[list[str]]) -> list[str]:
    """A caption row (one cell) above the table stands alone; the first full row of two columns or more names the
    columns."""
    caption = []
    while len(rows) > 1 and sum(map(bool, rows[0])) == 1:
        caption.append(" ".join(filter(None, rows[0])))
        rows = rows[1:]
    width = max(len(row) - next((i for i, cell in enumerate(reversed(row)) if cell), 0) for row in rows)
    first = rows[0][:width]
    named = (
        len(rows) > 1 and width > 1 and all(first) and not any(_number(c) for c in first) and len(set(first)) == width
    )
    return [*caption, table_text([row[:width] for row in rows], header=named)]


def _number(cell: str) -> bool:
    return cell.replace(".", "").replace("-", "").isdigit()


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return inline(str(value))
