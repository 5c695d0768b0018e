"""The page's reports that are neither exams nor maps: their numbers, and a table for each part that is one."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from gristmill.core.records import Report
from gristmill.runs.folder import Output
from gristmill.runs.report.sheet import grid, section

DRAWN = ("arms", "coverage")
"""Parts of a report that have sections of their own."""


def numbers(outputs: Mapping[str, Output]) -> str:
    reports = [report for output in outputs.values() for report in output.only(Report)]
    return "".join(
        section(report.title, _told(report.data))
        for report in reports
        if not any(part in report.data for part in DRAWN)
    )


def _told(data: Mapping[str, Any]) -> str:
    plain = [[name, _shown(value)] for name, value in data.items() if not isinstance(value, dict | list)]
    parts = [grid(["figure", "value"], plain)]
    for name, part in data.items():
        if isinstance(part, dict) and part:
            parts.append(f"<h3>{escape(name)}</h3>{_table(part)}")
    return "".join(parts)


def _table(part: Mapping[str, Any]) -> str:
    """A line for each of its entries; their own figures are the columns, where they have some."""
    lines = {name: value if isinstance(value, dict) else {"value": value} for name, value in part.items()}
    columns = list(dict.fromkeys(key for line in lines.values() for key in line))
    return grid(["", *columns], [[name, *(_shown(line.get(key)) for key in columns)] for name, line in lines.items()])


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)[:120]
