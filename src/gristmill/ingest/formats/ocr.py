"""Pages without text: drawn at 200 dpi and read by tesseract, a child of the reading child, under the same limits."""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import replace
from typing import Any

from gristmill.core.errors import Reject
from gristmill.ingest.formats import txt
from gristmill.ingest.pieces import Piece

DPI = 200
MAX_PIXELS = 40_000_000  # a page of A2; larger ones are drawn smaller


def find(language: str | None) -> list[str] | None:
    """The command that reads an image from stdin; None where there is no tesseract, or no OCR is wanted."""
    program = shutil.which("tesseract") if language else None
    return [program, "stdin", "stdout", "--dpi", str(DPI), "-l", str(language)] if program else None


def read(command: list[str], page: Any, number: int) -> list[Piece]:
    """The pieces of one scanned page; none where tesseract sees no text."""
    scale = DPI / 72
    pixels = page.get_width() * page.get_height() * scale**2
    image = page.render(scale=scale * min(1.0, (MAX_PIXELS / max(1.0, pixels)) ** 0.5), grayscale=True).to_pil()
    data = io.BytesIO()
    image.save(data, "png", compress_level=1)
    done = subprocess.run(command, input=data.getvalue(), capture_output=True, check=False)
    if done.returncode != 0:
        raise Reject("tesseract failed", done.stderr.decode("utf-8", "replace")[-300:])
    return [replace(piece, pages=((0, number),)) for piece in txt.read(done.stdout.decode("utf-8", "replace")).pieces]
