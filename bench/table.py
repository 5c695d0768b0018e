"""Markdown tables, and the parts of RESULTS.md that a bench writes by itself, between two marks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from bench.peers import ROOT

RESULTS = ROOT / "bench" / "RESULTS.md"


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def keep(name: str, text: str) -> None:
    """Put `text` between the marks of that name; at the end of the page where it has none."""
    begin, end = f"<!-- {name}: written by its bench -->", f"<!-- end of {name} -->"
    page = RESULTS.read_text("utf-8")
    part = f"{begin}\n{text}\n{end}"
    if begin in page:
        page = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: part, page, flags=re.DOTALL)
    else:
        page = f"{page.rstrip()}\n\n## {name.capitalize()}\n\n{part}\n"
    RESULTS.write_text(page, "utf-8")
