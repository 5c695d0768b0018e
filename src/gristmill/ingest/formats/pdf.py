"""PDF by pypdfium2: lines with their places from each page's characters, then heads and feet dropped, paragraphs
rebuilt."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from gristmill.core.errors import Reject
from gristmill.ingest.formats import ocr as scans
from gristmill.ingest.formats.pdf_lines import Bookmark, Line, PageLines
from gristmill.ingest.formats.pdf_paragraphs import paragraphs
from gristmill.ingest.pieces import Content, Piece

FEWEST = 8  # characters a page must have to count as text
SAMPLED = 12  # characters of a line whose height is looked at
FIXED_PITCH = 1  # bit of a PDF font's flags
LINE_ENDS = frozenset((10, 13, 0x85, 0x2028))
HYPHENS = frozenset((2, 0xFFFE))  # what pdfium puts where a line ends in a hyphen


def read(data: bytes, *, max_pages: int, ocr: str | None, alive: Callable[[], None]) -> Content:
    """`ocr`: tesseract's name of the language to read pages without text in; None: such pages are left out and
    counted."""
    import pypdfium2

    try:
        pdf = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        raise Reject("encrypted file" if "password" in str(error).lower() else "damaged pdf", str(error)) from error
    if len(pdf) > max_pages:
        raise Reject(f"more than {max_pages} pages", f"{len(pdf)} pages")
    tesseract = scans.find(ocr)
    pages: list[PageLines] = []
    scanned: dict[int, list[Piece]] = {}
    without: list[int] = []
    for number in range(1, len(pdf) + 1):
        page = pdf[number - 1]
        lines = _lines(page, number)
        if sum(len(line.text) for line in lines.lines) >= FEWEST:
            pages.append(lines)
        elif tesseract and _has_picture(page):
            alive()
            scanned[number] = scans.read(tesseract, page, number)
        if number not in scanned and not (pages and pages[-1].number == number):
            without.append(number)
        page.close()
    if not pages and not any(scanned.values()):
        raise Reject(
            "no text on any page" if tesseract or not ocr else "no text on any page; install tesseract for scans"
        )
    pieces = paragraphs(pages, _bookmarks(pdf), scanned)
    marks = {
        name: found for name, found in (("pages_without_text", without), ("pages_by_ocr", sorted(scanned))) if found
    }
    return Content("application/pdf", pieces, title=pdf.get_metadata_value("Title"), marks=marks)


def _has_picture(page: Any) -> bool:
    """Whether anything is drawn on the page; a blank page needs no OCR."""
    return next(iter(page.get_objects(max_depth=2)), None) is not None


def _bookmarks(pdf: Any) -> list[Bookmark]:
    found = []
    for item in pdf.get_toc(max_depth=8):
        place = item.get_dest()
        if place is not None and place.get_index() is not None:
            found.append(Bookmark(item.get_title(), item.level + 1, place.get_index() + 1))
    return found


def _lines(page: Any, number: int) -> PageLines:
    """The page's characters, in reading order, cut where pdfium sees a line end. Places in points, y from the
    bottom."""
    import pypdfium2.raw as raw

    text = page.get_textpage()
    codes = [raw.FPDFText_GetUnicode(text, i) for i in range(text.count_chars())]
    lines: list[Line] = []
    start = 0
    for at, value in enumerate([*codes, 10]):
        if value in LINE_ENDS or value in HYPHENS:
            line = _line(raw, text, codes, start, at, hyphen=value in HYPHENS)
            if line is not None:
                lines.append(line)
            start = at + 1
    text.close()
    return PageLines(number, page.get_width(), page.get_height(), lines)


def _line(raw: Any, text: Any, codes: list[int], start: int, end: int, *, hyphen: bool) -> Line | None:
    seen = [i for i in range(start, end) if codes[i] > 32 and codes[i] != 0xA0]
    if not seen:
        return None
    words = "".join(map(chr, codes[start:end])).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    sample = seen[:: max(1, len(seen) // SAMPLED)]
    boxes = [_box(raw, text, i) for i in sample]
    heights = sorted(box.top - box.bottom for box in boxes)
    first, last = _box(raw, text, seen[0]), _box(raw, text, seen[-1])
    return Line(
        text=words,
        left=min(first.left, last.left),
        right=max(first.right, last.right),
        bottom=min(first.bottom, last.bottom),
        size=heights[len(heights) // 2],
        fixed=all(_fixed_pitch(raw, text, i) for i in sample),
        hyphen=hyphen,
    )


def _fixed_pitch(raw: Any, text: Any, index: int) -> bool:
    flags = ctypes.c_int(0)
    raw.FPDFText_GetFontInfo(text, index, None, 0, ctypes.byref(flags))
    return bool(flags.value & FIXED_PITCH)


def _box(raw: Any, text: Any, index: int) -> Any:
    box = raw.FS_RECTF()
    raw.FPDFText_GetLooseCharBox(text, index, box)
    return box
