"""JSON lines: one paragraph group a line: the named field, or `text`, or all string fields as "name: value"."""

from __future__ import annotations

import json

from gristmill.core.errors import Reject
from gristmill.ingest.formats import txt
from gristmill.ingest.pieces import Content, Piece, inline


def read(text: str, field: str | None) -> Content:
    pieces: list[Piece] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise Reject("damaged jsonl", f"line {number}: {error}") from error
        pieces += _row(row, field, number)
    return Content("application/jsonl", pieces)


def _row(row: object, field: str | None, number: int) -> list[Piece]:
    if isinstance(row, str):
        return txt.read(row).pieces
    if not isinstance(row, dict):
        raise Reject("jsonl line is not an object", f"line {number}")
    if field is not None and not isinstance(row.get(field), str):
        raise Reject(f"jsonl line without the text field {field}", f"line {number}")
    chosen = row.get(field or "text")
    if isinstance(chosen, str):
        return txt.read(chosen).pieces
    shown = [f"{name}: {inline(value)}" for name, value in row.items() if isinstance(value, str) and value.strip()]
    return [Piece("paragraph", "; ".join(shown))]
