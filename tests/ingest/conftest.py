"""Real files in a folder, read as a run reads them: listed by the pass, read by the step in its child process."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gristmill.core.errors import Reject
from gristmill.core.records import Document, File
from gristmill.core.stage import Dropped
from gristmill.ingest import files, read
from gristmill.ingest.stages import ReadConfig

W = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
REL = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


class Context:
    """What the two stages use of their context."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.counts: dict[str, float] = {}

    def count(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self.counts[name] = self.counts.get(name, 0) + amount


async def read_all(base: Path, *paths: str, **options: object) -> dict[str, Document | str]:
    """Path -> the document, or the reason why there is none."""
    config = ReadConfig(kind="ingest.read", paths=list(paths), **options)
    context = Context(base)

    async def one(file: File) -> Document | str:
        try:
            return (await read.run(config, file, context))[0]
        except Reject as reject:
            return reject.reason

    out: dict[str, Document | str] = {}
    listed = list(files.run(config, [], context))
    found = [item for item in listed if isinstance(item, File)]
    for file, result in zip(found, await asyncio.gather(*map(one, found)), strict=True):
        out[file.path] = result
    return out | {item.record.path: item.reason for item in listed if isinstance(item, Dropped)}


@pytest.fixture
def read_one(tmp_path: Path) -> Callable[..., Document | str]:
    """Reads bytes under a name: a document, or the reason it was rejected with."""

    def read_bytes(name: str, data: bytes, **options: object) -> Document | str:
        (tmp_path / name).write_bytes(data)
        return asyncio.run(read_all(tmp_path, name, **options))[name]

    return read_bytes


def blocks_of(document: Document | str) -> list[tuple[str, str]]:
    """Kind and text of every block; the spans must be exact and in order."""
    assert isinstance(document, Document), document
    end = 0
    for block in document.blocks:
        assert end <= block.start < block.end <= len(document.text)
        assert document.text[end : block.start].strip() == ""
        end = block.end
    return [(b.kind, document.text[b.start : b.end]) for b in document.blocks]


def zipped(members: dict[str, str | bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def docx(body: str, extra: dict[str, str | bytes] | None = None) -> bytes:
    """A Word file around the XML of its body, styles as Word names them."""
    heading = "".join(
        f'<w:style w:type="paragraph" w:styleId="Heading{n}"><w:name w:val="heading {n}"/></w:style>' for n in (1, 2)
    )
    types = "http://schemas.openxmlformats.org/package/2006/content-types"
    package = "http://schemas.openxmlformats.org/package/2006/relationships"
    main = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    return zipped(
        {
            "[Content_Types].xml": f'<Types xmlns="{types}"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{main}.document.main+xml"/>'
            f'<Override PartName="/word/styles.xml" ContentType="{main}.styles+xml"/></Types>',
            "_rels/.rels": f'<Relationships xmlns="{package}"><Relationship Id="r1" Type="{REL}/officeDocument" '
            'Target="word/document.xml"/></Relationships>',
            "word/_rels/document.xml.rels": f'<Relationships xmlns="{package}"><Relationship Id="r1" '
            f'Type="{REL}/styles" Target="styles.xml"/></Relationships>',
            "word/styles.xml": f'<w:styles xmlns:w="{W}">{heading}</w:styles>',
            "word/document.xml": f'<w:document xmlns:w="{W}"><w:body>{body}</w:body></w:document>',
            **(extra or {}),
        }
    )


def w_p(text: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"


def w_table(*rows: list[str]) -> str:
    cells = ["".join(f"<w:tc>{w_p(cell)}</w:tc>" for cell in row) for row in rows]
    return "<w:tbl>" + "".join(f"<w:tr>{row}</w:tr>" for row in cells) + "</w:tbl>"
