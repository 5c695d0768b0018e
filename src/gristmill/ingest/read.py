"""A file to a document: asked of a child process, because a file is written by others."""

from __future__ import annotations

from gristmill.core.errors import Reject
from gristmill.core.records import Block, Document, File, Page
from gristmill.core.stage import StepContext
from gristmill.ingest.pool import shared
from gristmill.ingest.stages import ReadConfig

UNPACKED = 4  # times max_mb: what an archive may hold


async def run(config: ReadConfig, record: File, ctx: StepContext) -> list[Document]:
    location = record.marks.get("location")
    if not isinstance(location, str):
        raise Reject("file without a location", "the mark `location` says where it lies")
    request = {
        "location": location,
        "path": record.path,
        "sha256": record.sha256,
        "memory": config.memory_mb << 20,
        "seconds": config.seconds,
        "options": {
            "ocr": config.ocr,
            "ocr_language": config.ocr_language,
            "language": config.language,
            "text_field": config.text_field,
            "max_pages": config.max_pages,
            "max_bytes": int(config.max_mb * 1e6) * UNPACKED,
        },
    }
    parts = await shared().read(request, seconds=config.seconds)
    document = Document(
        path=record.path,
        title=parts["title"],
        text=parts["text"],
        language=parts["language"],
        media_type=parts["media_type"],
        pages=tuple(Page(number=n, start=s, end=e) for n, s, e in parts["pages"]),
        blocks=tuple(Block(kind=k, start=s, end=e, level=v) for k, s, e, v in parts["blocks"]),
        parents=(record.id,),
        marks=parts["marks"],
    )
    ctx.count(pages=len(document.pages), characters=len(document.text))
    return [document]
