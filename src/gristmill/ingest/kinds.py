"""What a file is: by its content first, by its name's ending second. What is neither known nor text is refused."""

from __future__ import annotations

import io
import re
import zipfile

from gristmill.core.errors import Reject

TEXT = {
    "md": "md", "markdown": "md", "mdown": "md",
    "html": "html", "htm": "html", "xhtml": "html",
    "csv": "csv", "tsv": "csv",
    "jsonl": "jsonl", "ndjson": "jsonl",
}  # fmt: skip
BINARY = frozenset(["pdf", "docx", "pptx", "xlsx", "epub", "doc", "xls", "ppt", "odt", "odp", "ods"])
MEMBERS = {"word/document.xml": "docx", "ppt/presentation.xml": "pptx", "xl/workbook.xml": "xlsx"}
REFUSED = (
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "old or encrypted Office file; save it as docx, pptx or xlsx without a password",
    ),
    (b"{\\rtf", "rtf is not read; save it as docx"),
    (b"\x1f\x8b", "compressed file; unpack it"),
)
_HTML = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}\?>\s*)?(?:<!--.{0,2000}?-->\s*)*<(?:!doctype\s+html|html)\b",
    re.I | re.S,
)
_XML = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*<(?:\?xml|svg|!DOCTYPE(?!\s+html))", re.IGNORECASE)


def kind_of(data: bytes, path: str) -> str:
    """One of pdf docx pptx xlsx epub html md csv jsonl txt; Reject for anything else."""
    ending = path.rpartition("/")[2].lower().rpartition(".")[2]
    head = data[:4096]
    if not data.strip(b"\0 \t\r\n"):
        raise Reject("empty file" if not data.strip() else "unknown binary file")
    for mark, reason in REFUSED:
        if head.startswith(mark):
            raise Reject(reason)
    if b"%PDF-" in head[:1024] and (head.startswith(b"%PDF-") or ending == "pdf"):
        return "pdf"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_kind(data)
    if _HTML.match(head):
        return "html"
    if ending in BINARY:
        raise Reject(f"not a {ending} file", "its content is not what its name says")
    if ending not in TEXT and _XML.match(head):
        raise Reject("xml is not read")
    if ending == "json":
        raise Reject("json is not read; give one object a line, as jsonl")
    return TEXT.get(ending, "txt")


def _zip_kind(data: bytes) -> str:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist()[:50_000])
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Reject("damaged archive", str(error)) from error
    for member, kind in MEMBERS.items():
        if member in names:
            return kind
    if "META-INF/container.xml" in names:
        return "epub"
    raise Reject("zip archive that is no document")
