"""Markdown: read by markdown-it, then walked like any other HTML. Front matter gives the title and is dropped."""

from __future__ import annotations

import re

from gristmill.core.errors import Reject
from gristmill.ingest.formats import html
from gristmill.ingest.formats.tree import blocks
from gristmill.ingest.pieces import Content

_FRONT = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE = re.compile(r"^title:[ \t]*(.+?)[ \t]*$", re.MULTILINE)


def read(text: str) -> Content:
    from markdown_it import MarkdownIt

    front = _FRONT.match(text)
    named = _TITLE.search(front[1]) if front else None
    body = text[front.end() :] if front else text
    page = MarkdownIt("commonmark").enable("table").render(body)
    if not page.strip():
        raise Reject("empty file")
    root = html.parse(f"<html><body>{page}</body></html>".encode(), "utf-8")
    return Content("text/markdown", blocks(root.find("body")), title=named[1].strip("'\"") if named else "")
