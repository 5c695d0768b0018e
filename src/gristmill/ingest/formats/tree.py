"""Blocks from a tree of HTML, or of trafilatura's XML (head, list, item, row, cell, lb): one walk for html, md,
docx, epub."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from gristmill.ingest.formats.table import table_text
from gristmill.ingest.pieces import Piece, clean, code, inline

# fmt: off
SKIPPED = frozenset((
    "script", "style", "noscript", "template", "svg", "button", "select", "option", "input", "textarea",
    "iframe", "object", "audio", "video", "canvas", "nav",
))
BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "footer", "form", "header", "hr", "html", "li", "main", "ol", "p",
    "quote", "section", "summary", "ul", "tbody", "tr", "td", "th",
))
# fmt: on
NAMES = {"list": "ul", "item": "li", "row": "tr", "cell": "td", "lb": "br"}
RICH = ("p", "div", "pre", "table", "ul", "ol", "dl", "list")
_PERMALINK = frozenset("¶#§🔗")


def name_of(node: etree._Element) -> str:
    """Tag in HTML's words; empty for comments and processing instructions."""
    if not isinstance(node.tag, str):
        return ""
    tag = str(node.tag).rpartition("}")[2].lower()
    rend = str(node.get("rend", ""))
    if tag == "head" and rend[:1] == "h":
        return rend
    if tag == "item" and rend[:2] in ("dt", "dd"):
        return rend[:2]
    if tag == "list" and rend == "dl":
        return "dl"
    return NAMES.get(tag, tag)


def hidden(node: etree._Element) -> bool:
    name = name_of(node)
    return (
        not name
        or name in SKIPPED
        or node.get("hidden") is not None
        or node.get("aria-hidden") == "true"
        or (name == "a" and (node.text or "").strip() in _PERMALINK and not len(node))
    )


def words(node: etree._Element) -> str:
    """The visible text of a node, raw. A line break is a new line; blocks inside are set apart by a space."""
    parts = [node.text or ""]
    for child in node:
        if not hidden(child):
            name = name_of(child)
            inner = "\n" if name == "br" else words(child)
            parts.append(f" {inner} " if name in BLOCKS else inner)
        parts.append(child.tail or "")
    return "".join(parts)


class Walk:
    """Collects pieces in reading order; inline text gathers until a block begins or ends."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.line: list[str] = []

    def flush(self) -> None:
        for paragraph in re.split(r"\n\s*\n", clean("".join(self.line))) if self.line else ():
            self.add("paragraph", inline(paragraph))
        self.line.clear()

    def add(self, kind: str, text: str, level: int = 0) -> None:
        if text:
            self.pieces.append(Piece(kind, text, level))  # type: ignore[arg-type]

    def inside(self, node: etree._Element) -> None:
        self.text(node.text)
        for child in node:
            if not hidden(child):
                self.visit(child)
            self.text(child.tail)

    def text(self, text: str | None) -> None:
        """A line end in the source is a space; only <br> is a line end."""
        if text:
            self.line.append(re.sub(r"\s+", " ", text))

    def visit(self, node: etree._Element) -> None:
        name = name_of(node)
        if name == "br":
            self.line.append("\n")
        elif name in BLOCK_WAYS:
            self.flush()
            BLOCK_WAYS[name](self, node)
        elif name == "code" and _stands_alone(node):
            self.flush()
            self.add("code", code("".join(node.itertext())))
        elif name in BLOCKS:
            self.flush()
            self.inside(node)
            self.flush()
        else:
            self.inside(node)

    def heading(self, node: etree._Element) -> None:
        self.add("heading", inline(words(node)).rstrip("¶ "), int(name_of(node)[1]))

    def pre(self, node: etree._Element) -> None:
        self.add("code", code("".join(node.itertext())))

    def list(self, node: etree._Element) -> None:
        self.add("list", "\n".join(list_lines(node)))

    def definitions(self, node: etree._Element) -> None:
        """Short definitions are lines "term: meaning"; where the meaning has structure of its own, it is walked."""
        if any(
            len(d.xpath(".//*[self::p or self::pre or self::table or self::ul or self::dl or self::list]")) > 1
            for d in node
        ):
            for child in node:
                self.flush()
                if not hidden(child):
                    self.inside(child)
            self.flush()
            return
        lines: list[str] = []
        term = ""
        for child in node.iter():
            if name_of(child) == "dt":
                term = inline(words(child))
            elif name_of(child) == "dd":
                lines.append(f"{term}: {inline(words(child))}" if term else inline(words(child)))
                term = ""
        self.add("list", "\n".join(f"- {line}" for line in [*lines, term] if line))

    def table(self, node: etree._Element) -> None:
        rows = [row for row in node.iter() if name_of(row) == "tr"]
        cells = [[cell for cell in row if name_of(cell) in ("td", "th")] for row in rows]
        layout = node.xpath(".//*[self::table or self::h1 or self::h2 or self::h3 or self::pre]")
        if layout or max(map(len, cells), default=0) < 2:
            self.inside(node)
            self.flush()
            return
        texts = [[inline(words(cell)) for cell in row for _ in range(_width(cell))] for row in cells]
        self.add("table", table_text(texts, header=_header(cells)))


def _stands_alone(node: etree._Element) -> bool:
    """trafilatura's code blocks: several lines, and no part of a paragraph, where line ends mean nothing."""
    return "\n" in "".join(node.itertext()).strip() and name_of(node.getparent()) not in ("p", "a", "span")


def _width(cell: etree._Element) -> int:
    span = cell.get("colspan", "1")
    return min(int(span), 100) if span.isdigit() and span != "0" else 1


def _header(cells: list[list[etree._Element]]) -> bool | None:
    """A marked header: every cell of the first row is one, or is bold where other rows are not."""
    if not cells or not cells[0]:
        return None
    if all(name_of(c) == "th" or c.get("role") == "head" for c in cells[0]):
        return True
    if any(name_of(c) == "th" or c.get("role") == "head" for row in cells for c in row):
        return False  # row headers only
    bold = [all(c.xpath(".//*[self::strong or self::b or self::hi]") for c in row) for row in cells]
    return True if bold[0] and not all(bold) else None


def list_lines(node: etree._Element, depth: int = 0) -> Iterator[str]:
    """One line an item, marked and indented by its depth; a nested list follows its item."""
    number = 0
    for item in node:
        name = name_of(item)
        if name in ("ul", "ol"):  # a list put straight into a list
            yield from list_lines(item, depth + 1)
        if hidden(item) or name not in ("li", "dt", "dd"):
            continue
        number += 1
        nested = [c for c in item if name_of(c) in ("ul", "ol")]
        own = inline("".join([item.text or "", *_parts(item, nested)]))
        mark = f"{number}." if name_of(node) == "ol" else "-"
        if own:
            yield f"{'  ' * depth}{mark} {own}"
        for inner in nested:
            yield from list_lines(inner, depth + 1)


def _parts(item: etree._Element, nested: list[etree._Element]) -> Iterator[str]:
    for child in item:
        if child not in nested and not hidden(child):
            name = name_of(child)
            inner = "\n" if name == "br" else words(child)
            yield f" {inner} " if name in BLOCKS or name in RICH else inner
        yield child.tail or ""


BLOCK_WAYS = {
    **{f"h{level}": Walk.heading for level in range(1, 7)},
    "pre": Walk.pre,
    "ul": Walk.list,
    "ol": Walk.list,
    "dl": Walk.definitions,
    "table": Walk.table,
}


def blocks(root: etree._Element) -> list[Piece]:
    walk = Walk()
    walk.inside(root)
    walk.flush()
    return walk.pieces
