"""Plain text: paragraphs by empty lines, hard-wrapped lines joined, lists and evident headings seen."""

from __future__ import annotations

import re

from gristmill.ingest.pieces import Content, Piece, clean, inline, join_lines

_ITEM = re.compile(r"^\s*(?:[-*•–]|\d{1,3}[.)]|[a-z]\))\s+\S")
_RULE = re.compile(r"^\s*(=|-|~|\*|_)\1{2,}\s*$")
ENDS = ".!?:;,。！？"
_NUMBERED = re.compile(
    r"^(?:(?:Chapter|Part|Section|Kapitel|Chapitre)\s+[\dIVXLC]+\b|\d+(?:\.\d+)*\.?\s+[^\W\d])", re.IGNORECASE
)


def read(text: str) -> Content:
    groups: list[list[str]] = [[]]
    for line in clean(text).split("\n"):
        if line.strip():
            groups[-1].append(line.rstrip())
        elif groups[-1]:
            groups.append([])
    groups = [group for group in groups if group]
    pieces: list[Piece] = []
    for at, group in enumerate(groups):
        following = groups[at + 1] if at + 1 < len(groups) else []
        pieces += _group(group, following, first=at == 0)
    return Content("text/plain", pieces)


def _group(lines: list[str], following: list[str], *, first: bool = False) -> list[Piece]:
    """The lines between two empty ones: a heading, a list, one wrapped paragraph, verse, or a paragraph a line."""
    if len(lines) > 1 and _RULE.match(lines[1]) and len(lines[0]) < 120:
        level = 1 if lines[1].strip()[0] == "=" else 2
        return [Piece("heading", inline(lines[0]), level), *_group(lines[2:], following)]
    lines = [line for line in lines if not _RULE.match(line)]
    if not lines:
        return []
    if first and len(lines) > 1 and _is_marked(lines[0].strip()):
        return [Piece("heading", inline(lines[0]), 1), *_group(lines[1:], [])]
    if len(lines) == 1 and (level := heading_level(lines[0].strip(), following)):
        return [Piece("heading", inline(lines[0]), level)]
    if _ITEM.match(lines[0]) and len(lines) > 1:
        return [Piece("list", "\n".join(_items(lines)))]
    width = max(map(len, lines))
    if len(lines) > 1 and 40 <= width <= 140 and all(len(line) > 0.55 * width for line in lines[:-1]):
        return [Piece("paragraph", join_lines([inline(line) for line in lines]))]
    if width > 140:
        return [Piece("paragraph", inline(line)) for line in lines]
    return [Piece("paragraph", "\n".join(inline(line) for line in lines))]


def _is_marked(line: str) -> bool:
    """A short line that is numbered, or all capitals, and does not end like a sentence."""
    if len(line) > 80 or line[-1] in ENDS:
        return False
    return bool(_NUMBERED.match(line)) or (line.isupper() and sum(c.isalpha() for c in line) > 2)


def heading_level(line: str, following: list[str]) -> int:
    """Level of a line that stands alone; 0 when it is no heading. One that is not marked is a heading, of the second
    level, when it is a few words, begins with a capital, and is followed by a paragraph that ends like one."""
    if _is_marked(line):
        number = re.match(r"\d+(?:\.\d+)*", line)
        return 1 + number[0].count(".") if number else 1
    few = len(line) <= 60 and len(line.split()) <= 8 and line[0].isupper() and line[-1] not in ENDS
    prose = sum(map(len, following)) > 80 and following[-1][-1] in ".!?。！？" and not _ITEM.match(following[0])
    return 2 if few and prose else 0


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
