"""Paragraphs, headings, lists and code from the lines of a PDF: by size, gaps, margins and the PDF's own outline."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from gristmill.ingest.formats.pdf_lines import Bookmark, Line, PageLines, drop_contents, drop_running
from gristmill.ingest.pieces import Kind, Piece, clean, inline, join_lines

COLUMN = 0.15  # share of a page's width within which lines that begin belong to one column
BULLETS = "•◦▪▫■□●○‣⁃∙·–—*➢➔✓"
_ITEM = re.compile(rf"^(?:[{BULLETS}-]\s+|\(?\d{{1,2}}[.)]\s+|[a-z]\)\s+)")
_ENDS = re.compile(r"[.!?:;。！？][\"'”’)\]]*$")
_WORD_BEFORE = re.compile(r"^(?:chapter|appendix|part)\s+", re.IGNORECASE)
_NUMBER_BEFORE = re.compile(r"^(?:(?i:chapter|appendix|part)\s+)?(?:\d+|[A-Z]|[IVXLC]+)(?:\.\d+)*\.?\s+")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


@dataclass
class Group:
    """Lines that make one block, with the page of each."""

    kind: Kind
    lines: list[Line] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    level: int = 0
    right: float = 0.0  # where the column of the last line ends

    def add(self, line: Line, page: PageLines) -> None:
        self.lines.append(line)
        self.pages.append(page.number)
        self.right = right_margin(line, page)


class Layout:
    """What the whole document says about its type: the body's size, the sizes of headings, how words are written."""

    def __init__(self, pages: list[PageLines], bookmarks: Iterable[Bookmark]) -> None:
        sizes: Counter[float] = Counter()
        for page in pages:
            for line in page.lines:
                sizes[round(line.size * 2) / 2] += len(line.text)
        self.body = sizes.most_common(1)[0][0] if sizes else 10.0
        larger = sorted({s for s in sizes if s > 1.12 * self.body}, reverse=True)
        self.marks = {(mark.page, _key(mark.title)): mark.level for mark in bookmarks}
        below = max(self.marks.values(), default=0)
        self.levels = {size: below + level for level, size in enumerate(larger[:6], 1)}
        self.words = Counter(w.lower() for page in pages for line in page.lines for w in _WORD.findall(line.text))

    def heading(self, line: Line, page: int) -> int:
        """Level of a heading, 0 for other lines: as the outline says; what it does not name, by the size of its type,
        below all that it names."""
        for title in (line.text, _WORD_BEFORE.sub("", line.text), _NUMBER_BEFORE.sub("", line.text)):
            if (page, _key(title)) in self.marks:
                return self.marks[page, _key(title)]
        if len(line.text) > 200 or not _key(line.text):
            return 0
        return self.levels.get(round(line.size * 2) / 2, 0)

    def unhyphenate(self, left: str, right: str) -> str:
        """A word cut at a line's end: whole, unless the document writes it with its hyphen elsewhere."""
        head, tail = re.search(r"[^\W\d_]*$", left), re.match(r"[^\W\d_]*", right)
        a, b = (head[0] if head else "").lower(), (tail[0] if tail else "").lower()
        whole, cut = self.words[a + b], self.words[f"{a}-{b}"]
        joined = whole >= cut if whole or cut else bool(a and b and right[:1].islower())
        return left + right if joined else f"{left}-{right}"


def _key(text: str) -> str:
    return re.sub(r"\W+", "", text).lower()


def paragraphs(pages: list[PageLines], bookmarks: list[Bookmark], scanned: dict[int, list[Piece]]) -> list[Piece]:
    """Pieces of all pages in order. `scanned`: pieces of pages that OCR read."""
    pages = [drop_contents(page) for page in drop_running(pages)]
    layout = Layout(pages, bookmarks)
    out: list[tuple[int, Piece]] = [(number, piece) for number, pieces in scanned.items() for piece in pieces]
    groups: list[Group] = []
    for page in pages:
        for index, line in enumerate(page.lines):
            _place(groups, line, page, layout, first=index == 0)
    out += [(group.pages[0], piece) for group in groups for piece in [_piece(group, layout)] if piece.text]
    return [piece for _, piece in sorted(out, key=lambda item: item[0])]


def right_margin(line: Line, page: PageLines) -> float:
    """Where the lines of its column end, the longest few left out: those that begin about where it does, or all of the
    page's where they are few."""
    column = [other.right for other in page.lines if abs(other.left - line.left) < COLUMN * page.width]
    rights = sorted(column if len(column) > 3 else [other.right for other in page.lines])
    return rights[int(0.95 * (len(rights) - 1))]


def _place(groups: list[Group], line: Line, page: PageLines, layout: Layout, *, first: bool) -> None:
    """Add the line to the last group, or begin a new one."""
    level = layout.heading(line, page.number)
    last = groups[-1] if groups else None
    if last is not None and _goes_on(last, line, level, first=first):
        last.add(line, page)
        return
    kind: Kind = (
        "heading" if level else "code" if line.fixed else "list" if _ITEM.match(line.text.lstrip()) else "paragraph"
    )
    group = Group(kind, level=level)
    group.add(line, page)
    groups.append(group)


def _goes_on(group: Group, line: Line, level: int, *, first: bool) -> bool:
    """Whether a line belongs to the block before it. `first`: it begins a page."""
    before = group.lines[-1]
    if before.hyphen:
        return True
    if level or group.kind == "heading":
        return bool(level) and level == group.level and not first and _near(before, line)
    if group.kind == "code":
        return line.fixed and (first or _near(before, line, 3.0))
    if line.fixed and len(line.text) > 1 and not before.fixed:
        return False
    item = bool(_ITEM.match(line.text.lstrip()))
    if group.kind == "list" and item:
        return first or _near(before, line, 3.0)
    if item and not first and before.left - line.left < 2 and _ENDS.search(before.text):
        return False
    if item and line.text.lstrip()[0] in BULLETS:
        return False
    if abs(before.size - line.size) > 0.12 * before.size:
        return False
    if first or line.bottom > before.bottom + before.size:  # a new page or column: only an open sentence goes on
        return not _ENDS.search(before.text) and (line.text.lstrip()[:1].islower() or before.right > 0.9 * group.right)
    open_item = group.kind == "list" or before.text.rstrip().endswith(",")
    if open_item and line.text.lstrip()[:1].islower() and not _ENDS.search(before.text):
        return _near(before, line)
    return _near(before, line) and not _ended(before, line, group.right)


def _near(before: Line, line: Line, pitch: float = 1.75) -> bool:
    return before.bottom - line.bottom < pitch * max(before.size, line.size)


def _ended(before: Line, line: Line, right: float) -> bool:
    """The line before was ended on purpose: the next word would have fit behind it."""
    word = line.text.split(maxsplit=1)[0]
    per_character = (line.right - line.left) / max(1, len(line.text))
    indented = line.left > before.left + 0.8 * line.size and _ENDS.search(before.text) is not None
    return indented or before.right + (len(word) + 1) * per_character < right - 2


def _piece(group: Group, layout: Layout) -> Piece:
    """The block's text; where a page begins inside it, the offset is kept."""
    text, pages = "", [(0, group.pages[0])]
    hyphen = False
    for line, page in zip(group.lines, group.pages, strict=True):
        words = clean(line.text).rstrip() if group.kind == "code" else inline(line.text)
        new_line = group.kind == "code" or (group.kind == "list" and _ITEM.match(words) and not hyphen)
        if not text:
            begin, text = 0, words
        elif hyphen:
            joined = layout.unhyphenate(text, words)
            begin, text = len(joined) - len(words), joined
        elif new_line:
            begin, text = len(text) + 1, f"{text}\n{words}"
        elif text.endswith("-") and len(text) > 1 and text[-2].isalpha():
            joined = layout.unhyphenate(text[:-1], words)
            begin, text = len(joined) - len(words), joined
        else:
            joined = join_lines([text, words])
            begin, text = len(joined) - len(words), joined
        if page != pages[-1][1]:
            pages.append((begin, page))
        hyphen = line.hyphen
    return Piece(group.kind, text, group.level, tuple(pages))
