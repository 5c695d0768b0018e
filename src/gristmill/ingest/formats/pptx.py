"""PowerPoint: a slide is a page; its title a heading, its text lists and paragraphs, tables rows, notes a paragraph."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from gristmill.core.errors import Reject
from gristmill.ingest.archive import open_zip
from gristmill.ingest.formats.table import table_text
from gristmill.ingest.pieces import Content, Piece, inline

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"


def read(data: bytes, *, max_bytes: int, max_pages: int) -> Content:
    from pptx import Presentation

    open_zip(data, max_bytes=max_bytes)
    deck = Presentation(io.BytesIO(data))
    if len(deck.slides) > max_pages:
        raise Reject(f"more than {max_pages} pages", f"{len(deck.slides)} slides")
    pieces: list[Piece] = []
    for number, slide in enumerate(deck.slides, 1):
        pieces += [replace(piece, pages=((0, number),)) for piece in _slide(slide)]
    return Content(MEDIA_TYPE, pieces, title=deck.core_properties.title or "")


def _slide(slide: Any) -> Iterator[Piece]:
    title = slide.shapes.title
    if title is not None and inline(title.text_frame.text):
        yield Piece("heading", inline(title.text_frame.text), 1)
    for shape in _shapes(slide.shapes):
        if title is None or shape.shape_id != title.shape_id:
            yield from _shape(shape)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        yield Piece("paragraph", inline(slide.notes_slide.notes_text_frame.text))


def _shapes(shapes: Iterable[Any]) -> Iterator[Any]:
    for shape in shapes:
        if hasattr(shape, "shapes"):  # a group
            yield from _shapes(shape.shapes)
        else:
            yield shape


def _shape(shape: Any) -> Iterator[Piece]:
    if getattr(shape, "has_table", False):
        rows = [[inline(cell.text) for cell in row.cells] for row in shape.table.rows]
        yield Piece("table", table_text(rows, header=bool(shape.table.first_row) and len(rows) > 1))
    elif shape.has_text_frame:
        lines = [(p.level, inline(p.text)) for p in shape.text_frame.paragraphs if inline(p.text)]
        if len(lines) == 1:
            yield Piece("paragraph", lines[0][1])
        elif lines:
            yield Piece("list", "\n".join(f"{'  ' * level}- {line}" for level, line in lines))
