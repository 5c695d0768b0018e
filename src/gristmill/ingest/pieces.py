"""What a format hands back, and how its pieces become one text with exact spans.

Text is kept faithful: NFC; control characters, soft hyphens, zero-width spaces and byte-order marks go; runs of
white space inside a sentence become one space. Joiners and direction marks stay: they carry meaning. Blocks are set
apart by one empty line.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["heading", "paragraph", "list", "table", "code"]

_GONE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\ufeff\ufffe\uffff]")
_LINE_END = re.compile("\r\n|[\r\x0c\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile(r"\s+")
# scripts written without spaces between words: wrapped lines are joined without one
_UNSPACED = re.compile(r"[\u2e80-\u9fff\ua000-\ua4cf\uf900-\ufaff\uff00-\uff9f\u0e00-\u0eff\U00020000-\U0003ffff]")


@dataclass(frozen=True)
class Piece:
    """A block before it has its place. `pages`: (offset in text, number) where a page begins inside or at its start."""

    kind: Kind
    text: str
    level: int = 0
    pages: tuple[tuple[int, int], ...] = ()


@dataclass
class Content:
    media_type: str
    pieces: list[Piece]
    title: str = ""
    marks: dict[str, list[int]] = field(default_factory=dict)


def clean(text: str) -> str:
    """Faithful text without what no reader sees; line structure kept."""
    text = _SURROGATE.sub("\ufffd", _GONE.sub("", _LINE_END.sub("\n", text)))
    return unicodedata.normalize("NFC", text)


def inline(text: str) -> str:
    """Clean text as one line."""
    return _BLANKS.sub(" ", clean(text)).strip()


def join_lines(lines: Sequence[str]) -> str:
    """Wrapped lines as one: with a space, or without one where the script has none."""
    text = ""
    for line in lines:
        unspaced = text and line and _UNSPACED.match(text[-1]) and _UNSPACED.match(line[0])
        text += line if not text or unspaced else f" {line}"
    return text


def code(text: str) -> str:
    """Clean lines, their indentation kept."""
    lines = [line.rstrip() for line in clean(text).expandtabs(4).split("\n")]
    return "\n".join(lines).strip("\n")


def assemble(content: Content) -> dict[str, object]:
    """Text, blocks and pages of a document as plain JSON. `text[start:end]` of every block is its piece's text."""
    parts: list[str] = []
    blocks: list[tuple[str, int, int, int]] = []
    starts: list[tuple[int, int]] = []
    at = 0
    for piece in content.pieces:
        if not piece.text.strip():
            continue
        blocks.append((piece.kind, at, at + len(piece.text), piece.level))
        starts += [(at + offset, number) for offset, number in piece.pages if not starts or starts[-1][1] != number]
        parts.append(piece.text)
        at += len(piece.text) + 2
    text = "\n\n".join(parts)
    ends = [start for start, _ in starts[1:]] + [len(text)] * bool(starts)
    pages = [(number, start, end) for (start, number), end in zip(starts, ends, strict=True)]
    first = next((p.text for p in content.pieces if p.kind == "heading"), "")
    return {
        "title": inline(content.title) or inline(first),
        "text": text,
        "blocks": blocks,
        "pages": pages,
        "media_type": content.media_type,
        "marks": content.marks,
    }
