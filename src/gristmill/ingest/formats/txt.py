"""Plain text: paragraphs by empty lines, hard-wrapped lines joined, lists and evident headings seen."""

from __future__ import annotations

import re

from gristmill.ingest.pieces import Content, Piece, clean, inline, join_lines

_ITEM = re.compile(r"^\s*(?:[-*•–]|\d{1,3}[.)]|[a-z]\))\s+\S")
_RULE = re.compile(r"^\s*(=|-|~|\*|_)\1{2,}\s*$")
_NUMBERED = re.compile(
    r"^(?:(?:Chapter|Part|Section|Kapitel|Chapitre)\s+[\dIVXLC]+\b|\d+(?:\.\d+)*\.?\s+[^\W\d])", re.IGNORECASE
)


def read(text: str) -> Content:
    pieces: list[Piece] = []
    group: list[str] = []
    for line in [*clean(text).split("\n"), ""]:
        if line.strip():
            group.append(line.rstrip())
        elif group:
            pieces += _group(group)
            group = []
    return Content("text/plain", pieces)


def _group(lines: list[str]) -> list[Piece]:
    """The lines between two empty ones: a heading, a list, one wrapped paragraph, verse, or a paragraph a line."""
    if len(lines) > 1 and _RULE.match(lines[1]) and len(lines[0]) < 120:
        level = 1 if lines[1].strip()[0] == "=" else 2
        return [Piece("heading", inline(lines[0]), level), *(_group(lines[2:]) if lines[2:] else [])]
    lines = [line for line in lines if not _RULE.match(line)]
    if not lines:
        return []
    if len(lines) == 1 and is_heading(lines[0].strip()):
        return [Piece("heading", inline(lines[0]), heading_level(lines[0].strip()))]
    if _ITEM.match(lines[0]) and len(lines) > 1:
        return [Piece("list", "\n".join(_items(lines)))]
    width = max(map(len, lines))
    if len(lines) > 1 and 40 <= width <= 140 and all(len(line) > 0.55 * width for line in lines[:-1]):
        return [Piece("paragraph", join_lines([inline(line) for line in lines]))]
    if width > 140:
        return [Piece("paragraph", inline(line)) for line in lines]
    return [Piece("paragraph", "\n".join(inline(line) for line in lines))]


def is_heading(line: str) -> bool:
    """A short line alone that is numbered, or all capitals, and does not end like a sentence."""
    if len(line) > 80 or line[-1] in ".!?:;,。！？" or (_ITEM.match(line) and not _NUMBERED.match(line)):
        return False
    return bool(_NUMBERED.match(line)) or (line.isupper() and sum(c.isalpha() for c in line) > 2)


def heading_level(line: str) -> int:
    number = re.match(r"\d+(?:\.\d+)*", line)
    return 1 + number[0].count(".") if number else 1


def _items(lines: list[str]) -> list[str]:
    """One line an item: what is wrapped below an item belongs to it."""
    items: list[str] = []
    for line in lines:
        if _ITEM.match(line) or not items:
            indent = (len(line) - len(line.lstrip())) // 2 * 2
            items.append(" " * min(indent, 8) + inline(line))
        else:
            items[-1] = join_lines([items[-1], inline(line)])
    return items
