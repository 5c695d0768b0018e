"""The frame of every page: one self-contained file, with the style in it and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files


def sheet(title: str, parts: Iterable[str]) -> str:
    """A page of some sections."""
    style = (files("gristmill.runs.report") / "page.css").read_text("utf-8")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · Gristmill</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{style}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def head(title: str, sub: str, headline: str = "") -> str:
    said = f'<p class="headline">{escape(headline)}</p>' if headline else ""
    return f"<header><h1>{escape(title)}</h1><p class=sub>{escape(sub)}</p>{said}</header>"


def section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def grid(headers: Sequence[str], rows: Sequence[Sequence[str]], *, names: int = 1) -> str:
    """A table whose first columns hold names, and all others figures."""
    if not rows:
        return ""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=n' if i >= names else ''}>{escape(c)}</{tag}>" for i, c in enumerate(cells))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f"<div class=scroll><table><tr>{line('th', headers)}</tr>{body}</table></div>"
