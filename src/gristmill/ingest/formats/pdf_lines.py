"""Lines of a PDF with their places, and which of them are running heads and feet."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

MARGIN = 0.11  # share of a page's height, at top and bottom, where heads and feet stand
_NUMBER = re.compile(r"\d+|\b[ivxlc]+\b", re.IGNORECASE)
_FIRST_NUMBER = re.compile(r"^\s*(\d{1,4})(?=\s|$)")
_LAST_NUMBER = re.compile(r"(?:^|\s)(\d{1,4})\s*$")
_LEADER = re.compile(r"(?:\.\s?){5,}\s*(?:\d+|[ivxlc]+)\s*$", re.IGNORECASE)
_ENDS_IN_NUMBER = re.compile(r"\s(?:\d+|[ivxlc]+)\s*$")
_PAGE_NUMBER = re.compile(r"^\W*(?:page|seite|p\.)?\s*#(?:\s*(?:/|of|von|de|-|–)\s*#)?\W*$", re.IGNORECASE)


@dataclass(frozen=True)
class Line:
    """Points; `bottom` counts from the page's foot. `hyphen`: it ends inside a word."""

    text: str
    left: float
    right: float
    bottom: float
    size: float
    fixed: bool = False
    hyphen: bool = False


@dataclass
class PageLines:
    number: int
    width: float
    height: float
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class Bookmark:
    """An entry of the PDF's outline: a heading, its depth from 1, and the page it is on."""

    title: str
    level: int
    page: int


def drop_contents(page: PageLines) -> PageLines:
    """A page without the lines of a table of contents: dots that lead to a page number, and on a page that is
    mostly such lines, every line that ends in one."""
    leaders = [line for line in page.lines if _LEADER.search(line.text)]
    if not leaders:
        return page
    listing = len(leaders) > len(page.lines) / 2
    kept = [x for x in page.lines if x not in leaders and not (listing and _ENDS_IN_NUMBER.search(x.text))]
    return PageLines(page.number, page.width, page.height, kept)


def _shape(text: str) -> str:
    return _NUMBER.sub("#", " ".join(text.split()))


def _edges(page: PageLines) -> list[Line]:
    """The lines that stand in the top or bottom margin, the outermost three of each."""
    ordered = sorted(page.lines, key=lambda line: line.bottom)
    low = [line for line in ordered[:3] if line.bottom < MARGIN * page.height]
    high = [line for line in ordered[-3:] if line.bottom > (1 - MARGIN) * page.height]
    return low + [line for line in high if line not in low]


def _heights(line: Line) -> set[int]:
    """Four-point bands, overlapping, so that a point's difference never parts two lines."""
    return {int(line.bottom // 4), int((line.bottom + 2) // 4) + 10_000}


def _offsets(line: Line, page: PageLines) -> set[int]:
    """What a number at the line's beginning or end is ahead of the page's place in the file."""
    found = (_FIRST_NUMBER.search(line.text), _LAST_NUMBER.search(line.text))
    return {int(hit[1]) - page.number for hit in found if hit}


def drop_running(pages: list[PageLines]) -> list[PageLines]:
    """Pages without running heads and feet. In the top and bottom margin these are: lines that stand at the same height
    of several pages and say the same, numbers aside; lines that carry a number that counts up with the pages; page
    numbers alone. Several: 3, or 2 of a document under 6 pages."""
    least = 2 if len(pages) < 6 else 3
    edges = [(page, line) for page in pages for line in _edges(page)]
    same = Counter((_shape(line.text), height) for _, line in edges for height in _heights(line))
    ahead = Counter(
        (offset, height) for page, line in edges for offset in _offsets(line, page) for height in _heights(line)
    )
    gone = {
        id(line)
        for page, line in edges
        if _PAGE_NUMBER.match(_shape(line.text))
        or any(same[_shape(line.text), height] >= least for height in _heights(line))
        or any(ahead[n, height] >= least for n in _offsets(line, page) for height in _heights(line))
    }
    return [
        PageLines(page.number, page.width, page.height, [line for line in page.lines if id(line) not in gone])
        for page in pages
    ]
