"""Tables of a run for the terminal: its funnel, and what its exam showed."""

from __future__ import annotations

from typing import Any

from gristmill.cli.options import table
from gristmill.core.records import Report
from gristmill.runs.figures import money
from gristmill.runs.folder import RunFolder


def funnel_table(folder: RunFolder) -> str:
    """One line a stage: in, out, and why anything was dropped. Columns that are zero everywhere are left out."""
    columns: dict[str, list[Any]] = {"stage": [], "in": [], "out": []}
    optional = ("rejected", "failed", "unreachable", "duplicates", "invalid", "truncated", "calls", "tokens", "cost")
    columns |= {name: [] for name in (*optional, "dropped because")}
    for name, output in folder.outputs().items():
        counts = output.meta["counts"]
        more = counts["more"]
        reasons = sorted({**counts["rejected"], **counts["failed"]}.items(), key=lambda item: -item[1])
        row = {
            "stage": name,
            "in": counts["taken"],
            "out": counts["given"],
            "rejected": sum(counts["rejected"].values()),
            "failed": sum(counts["failed"].values()),
            "unreachable": counts["unreachable"],
            "duplicates": counts["duplicates"],
            "invalid": int(more.get("invalid", 0)),
            "truncated": int(more.get("truncated", 0)),
            "calls": int(more.get("calls", 0)),
            "tokens": int(more.get("tokens_in", 0) + more.get("tokens_out", 0)),
            "cost": money(more["usd"]) if more.get("usd") else "",
            "dropped because": ", ".join(f"{why} {n}" for why, n in reasons[:3]) + (", …" if len(reasons) > 3 else ""),
        }
        for column, value in row.items():
            columns[column].append(value)
    shown = [name for name, values in columns.items() if name not in optional or any(values)]
    return table(shown, [list(row) for row in zip(*(columns[name] for name in shown), strict=True)])


def exam_table(folder: RunFolder) -> str:
    """Accuracy of every arm with its interval; empty when the run has no exam."""
    reports = [report for output in folder.outputs().values() for report in output.only(Report)]
    parts = []
    for report in reports:
        arms: Any = report.data.get("arms", {})
        rows = [
            [
                name,
                f"{a['right']}/{a['n']}",
                f"{a['accuracy']:.1%}",
                f"{a['low']:.1%} to {a['high']:.1%}",
                a["truncated"],
            ]
            for name, a in arms.items()
        ]
        parts.append(table(["exam", "right", "accuracy", "95 % interval", "truncated"], rows))
    return "\n\n".join(parts)
