"""Two runs or more on one page, and in the terminal: tables with a column for each run, and their losses overlaid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gristmill.runs.figures import amount, money
from gristmill.runs.measures import Curve
from gristmill.runs.report import charts
from gristmill.runs.report.sheet import grid, head, section, sheet
from gristmill.runs.search import written

Table = tuple[list[str], list[list[str]]]

POINTS = 500
"""Of a curve, at most."""

CHANGES = ("came", "went", "changed")

REASONS = 12
"""Told of each kind of change, the commonest first."""

ABSENT = "-"
"""What a run does not have."""


def compare_page(data: dict[str, Any], curves: Mapping[str, Mapping[str, Curve]]) -> str:
    names = [run["name"] for run in data["runs"]]
    drawn = [
        section(title, charts.curves(_thinned(lines), x_name="step", y_name="nats per token"))
        for title, lines in curves.items()
    ]
    parts = [section(title, grid(*table)) for title, table in tables(data).items()]
    return sheet(" and ".join(names), [head(" and ".join(names), "runs side by side"), *drawn, *parts])


def tables(data: dict[str, Any]) -> dict[str, Table]:
    """Title -> headers and rows; what is empty is left out."""
    names = [run["name"] for run in data["runs"]]
    runs = {key: [run[key] for run in data["runs"]] for key in ("id", "recipe", "started", "state", "calls", "tokens")}
    found = {
        "Runs": _rows(["", *names], runs | {"cost": [money(run["usd"]) for run in data["runs"]]}),
        "What differs": _rows(["key", *names], data["differs"]),
        "Funnel": _rows(["stage", *names], {s: [_flow(c) for c in counts] for s, counts in data["funnel"].items()}),
        "Data": _data(data["data"]),
        "Data: what came, went and changed, and why": _reasons(data["data"]),
        "Measured": _rows(["metric", *names], _measured(data)),
    }
    for stage, exam in data["exams"].items():
        found[f"Exam: {stage}"] = _rows(["arm", *names], {a: [_share(s) for s in v] for a, v in exam["arms"].items()})
        found[f"Exam: {stage}, question by question"] = _paired(exam["paired"])
    return {title: table for title, table in found.items() if table[1]}


def _data(lines: list[dict[str, Any]]) -> Table:
    """Each later run's data set beside the first's."""
    headers = ["run", "version", "against", "samples", "same", "came", "went", "changed"]
    rows = []
    for line in lines:
        versions, samples = " ← ".join(reversed(line["version"])), " ← ".join(map(str, reversed(line["samples"])))
        counts = [str(sum(line[what].values())) for what in CHANGES]
        rows.append([line["run"], versions, line["against"], samples, str(line["same"]), *counts])
    return headers, rows


def _reasons(lines: list[dict[str, Any]]) -> Table:
    """The commonest reasons, each with the first of its samples."""
    rows = []
    for line in lines:
        first = {(shown["what"], shown["why"]): shown["said"] for shown in reversed(line["shown"])}
        for what in CHANGES:
            for why, count in list(line[what].items())[:REASONS]:
                rows.append([line["run"], what, _shortened(why, 60), str(count), _shortened(first[what, why], 60)])
            if others := sum(list(line[what].values())[REASONS:]):
                rows.append([line["run"], what, "for other reasons", str(others), ""])
    return ["run", "", "why", "samples", "for example"], rows


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _rows(headers: list[str], lines: Mapping[str, list[Any]]) -> Table:
    return headers, [[key, *map(_shown, values)] for key, values in lines.items()]


def _measured(data: dict[str, Any]) -> dict[str, list[Any]]:
    """Metrics, but for those that the tables of exams hold."""
    told = tuple(f"{stage}.{arm}." for stage, exam in data["exams"].items() for arm in exam["arms"])
    return {name: values for name, values in data["metrics"].items() if not (told and name.startswith(told))}


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, str):
        return _shortened(value, 40)
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) and abs(value) < 1e12 else f"{value:.5g}"
    return _shortened(written(value), 40)


def _flow(counts: dict[str, Any] | None) -> str | None:
    if counts is None:
        return None
    dropped = sum(counts["rejected"].values()) + sum(counts["failed"].values()) + counts["unreachable"]
    return f"{amount(counts['taken'])} → {amount(counts['given'])}" + (f" (−{dropped})" if dropped else "")


def _share(share: dict[str, Any] | None) -> str | None:
    if share is None:
        return None
    return f"{share['right']}/{share['n']}  {share['accuracy']:.1%} ({share['low']:.1%} to {share['high']:.1%})"


def _paired(lines: list[dict[str, Any]]) -> Table:
    headers = ["arm", "run", "against", "questions", "only this", "only that", "difference", "95 % interval", "p"]
    rows = [
        [
            line["arm"],
            line["run"],
            line["against"],
            str(line["n"]) + (f" (+{line['others']} of one alone)" if line["others"] else ""),
            str(line["only_this"]),
            str(line["only_that"]),
            f"{line['difference']:+.1%}",
            f"{line['low']:+.1%} to {line['high']:+.1%}",
            f"{line['p']:.3g}",
        ]
        for line in lines
    ]
    return headers, rows


def _thinned(lines: Mapping[str, Curve]) -> dict[str, Curve]:
    return {name: line[:: max(1, len(line) // POINTS)] for name, line in lines.items()}
