"""One file's bytes to a document's parts, as plain JSON. Runs in a child process: nothing here trusts its input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gristmill.core.errors import Reject
from gristmill.ingest.encoding import decode
from gristmill.ingest.kinds import kind_of
from gristmill.ingest.language import language_of
from gristmill.ingest.pieces import Content, assemble


@dataclass(frozen=True)
class Options:
    """What a reader is told besides the file. `max_bytes` bounds what an archive may unpack to."""

    ocr: bool = True
    ocr_language: str = "eng"
    language: str | None = None
    text_field: str | None = None
    max_pages: int = 5000
    max_bytes: int = 800_000_000


def parse(data: bytes, path: str, options: Options, alive: Callable[[], None]) -> dict[str, Any]:
    """Title, text, blocks, pages, language of a document. `alive` is called before slow work on a single page."""
    kind = kind_of(data, path)
    parts: dict[str, Any] = assemble(READERS[kind](data, options, alive))
    if not parts["text"].strip():
        raise Reject("no text in it")
    parts["title"] = (parts["title"] or path.rpartition("/")[2].rpartition(".")[0] or path)[:300]
    parts["language"] = options.language or language_of(parts["text"])
    return parts


def _pdf(data: bytes, options: Options, alive: Callable[[], None]) -> Content:
    from gristmill.ingest.formats import pdf

    return pdf.read(data, max_pages=options.max_pages, ocr=options.ocr_language if options.ocr else None, alive=alive)


def _docx(data: bytes, options: Options, _alive: Callable[[], None]) -> Content:
    from gristmill.ingest.formats import docx

    return docx.read(data, max_bytes=options.max_bytes)


def _pptx(data: bytes, options: Options, _alive: Callable[[], None]) -> Content:
    from gristmill.ingest.formats import pptx

    return pptx.read(data, max_bytes=options.max_bytes, max_pages=options.max_pages)


def _xlsx(data: bytes, options: Options, _alive: Callable[[], None]) -> Content:
    from gristmill.ingest.formats import xlsx

    return xlsx.read(data, max_bytes=options.max_bytes, max_pages=options.max_pages)


def _epub(data: bytes, options: Options, _alive: Callable[[], None]) -> Content:
    from gristmill.ingest.formats import epub

    return epub.read(data, max_bytes=options.max_bytes)


def _html(data: bytes, _options: Options, _alive: Callable[[], None]) -> Content:
    from gristmill.ingest.formats import html

    return html.read(data)


def _md(data: bytes, _options: Options, _alive: Callable[[], None]) -> Content:
    from gristmill.ingest.formats import md

    return md.read(decode(data).text)


def _csv(data: bytes, _options: Options, _alive: Callable[[], None]) -> Content:
    from gristmill.ingest.formats import delimited

    return delimited.read(decode(data).text)


def _jsonl(data: bytes, options: Options, _alive: Callable[[], None]) -> Content:
    from gristmill.ingest.formats import jsonl

    return jsonl.read(decode(data).text, options.text_field)


def _txt(data: bytes, _options: Options, _alive: Callable[[], None]) -> Content:
    from gristmill.ingest.formats import txt

    return txt.read(decode(data).text)


READERS: dict[str, Callable[[bytes, Options, Callable[[], None]], Content]] = {
    "pdf": _pdf,
    "docx": _docx,
    "pptx": _pptx,
    "xlsx": _xlsx,
    "epub": _epub,
    "html": _html,
    "md": _md,
    "csv": _csv,
    "jsonl": _jsonl,
    "txt": _txt,
}
