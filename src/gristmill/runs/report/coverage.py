"""The page's coverage map: every document as a strip of its sentences and facts, coloured by how many samples exercise
each, and those that none does in words. Of a `repeat` the last round's map, and how coverage grew."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from gristmill.core.records import Report
from gristmill.runs.figures import counted
from gristmill.runs.folder import Output
from gristmill.runs.report import charts
from gristmill.runs.report.sheet import grid, section

CELL, ACROSS = 11, 60
"""Width of a cell, and cells in a row."""

SHADES = 4
"""From none to so many times as many samples as are asked for."""

MAPPED, LISTED = 6000, 40
"""Cells drawn, and sentences told, at most; all of them are in the run's folder."""

Unit = tuple[int, int, int, str]
"""Start, end, samples, text."""


def coverage(outputs: Mapping[str, Output]) -> str:
    """A section for the last report of each stage that measured coverage; nothing where none did."""
    rounds: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name, output in outputs.items():
        for report in output.only(Report):
            if "coverage" in report.data:
                rounds.setdefault(name.partition(".")[0], []).append((name, report.data))
    names = {stage: f"Coverage: {stage}" if len(rounds) > 1 else "Coverage" for stage in rounds}
    return "".join(section(names[stage], _map(told)) for stage, told in rounds.items())


def _map(told: list[tuple[str, dict[str, Any]]]) -> str:
    data = told[-1][1]
    documents: dict[str, dict[str, Any]] = data["coverage"]
    each = f"at least {counted(data['least'], 'sample')}" if data["least"] > 1 else "a sample"
    kinds = [kind for kind in ("sentences", "facts") if any(part[kind] for part in documents.values())]
    said = (
        f"{data['covered']:.1%} of {data['units']:,} {' and '.join(kinds)} are taught by {each}; the more, the darker."
    )
    rows = [[path, *_counts(part), f"{part['covered']:.0%}"] for path, part in documents.items()]
    parts = [f"<p>{escape(said)}</p>", _rounds(told), grid(["document", "sentences", "facts", "covered"], rows)]
    left = MAPPED
    for path, part in documents.items():
        units: list[Unit] = part["map"][: max(left, 0)]
        left -= len(units)
        if units:
            parts.append(f"<h3>{escape(path)}</h3>{_strip(units, data['least'])}")
    return "".join(parts) + _open(documents, data["least"])


def _counts(part: dict[str, Any]) -> list[str]:
    return [f"{part[name]:,}" for name in ("sentences", "facts")]


def _rounds(told: list[tuple[str, dict[str, Any]]]) -> str:
    """How coverage grew, where it was measured more than once."""
    if len(told) < 2:
        return ""
    rows = [[name, f"{data['samples']:,}", f"{data['covered']:.1%}"] for name, data in told]
    return grid(["round", "samples", "covered"], rows)


def _strip(units: list[Unit], least: int) -> str:
    cells = []
    for at, (_, _, samples, text) in enumerate(units):
        x, y = at % ACROSS * CELL, at // ACROSS * (CELL + 3)
        shade = min(SHADES, samples // least) if samples >= least else 0
        kind = f"cell shade{shade}" if samples else "cell none"
        tip = escape(f"{counted(samples, 'sample')}: {text}")
        cells.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{CELL - 1}" height="{CELL}"><title>{tip}</title></rect>'
        )
    rows = -(-len(units) // ACROSS)
    return charts.svg(rows * (CELL + 3), cells)


def _open(documents: dict[str, dict[str, Any]], least: int) -> str:
    """What is not covered, in words."""
    rows = [[path, str(n), text] for path, part in documents.items() for _, _, n, text in part["map"] if n < least]
    more = f"<p class=sub>And {len(rows) - LISTED:,} more.</p>" if len(rows) > LISTED else ""
    table = "".join(
        f"<tr><td>{escape(path)}</td><td class=n>{n}</td><td>{escape(text)}</td></tr>"
        for path, n, text in rows[:LISTED]
    )
    head = "<tr><th>document</th><th class=n>samples</th><th>sentence or fact</th></tr>"
    return f"<h3>Not covered yet</h3><div class=scroll><table>{head}{table}</table></div>{more}" if rows else ""
