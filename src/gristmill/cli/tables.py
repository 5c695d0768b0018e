"""Tables of a run for the terminal: its funnel, and what its exam showed."""

from __future__ import annotations

from typing import Any

from gristmill.cli.options import table
from gristmill.core.records import Report
from gristmill.runs.folder import RunFolder


def funnel_table(folder: RunFolder) -> str:
    """One line a stage: in, out, and why anything was dropped."""
    rows: list[list[Any]] = []
    for name, output in folder.outputs().items():
        counts = output.meta["counts"]
        more = counts["more"]
        reasons = sorted({**counts["rejected"], **counts["failed"]}.items(), key=lambda item: -item[1])
        why = ", ".join(f"{reason} {n}" for reason, n in reasons[:3]) + (", …" if len(reasons) > 3 else "")
        rows.append(
            [
                name,
                counts["taken"],
                counts["given"],
                sum(counts["rejected"].values()),
                sum(counts["failed"].values()),
                int(more.get("calls", 0)),
                int(more.get("tokens_in", 0) + more.get("tokens_out", 0)),
                why,
            ]
        )
    return table(["stage", "in", "out", "rejected", "failed", "calls", "tokens", "dropped because"], rows)


def exam_table(folder: RunFolder) -> str:
    """Accuracy of every arm with its interval; empty when the run has no exam."""
    reports = [r for output in folder.outputs().values() for r in output if isinstance(r, Report)]
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
