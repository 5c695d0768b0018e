"""Tables of a run for the terminal: its funnel, and what its exam showed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from gristmill.cli.options import short, table
from gristmill.core.records import Report
from gristmill.core.store import Spent
from gristmill.llm.budget import KILLED
from gristmill.runs.figures import amount, counted, money
from gristmill.runs.folder import RunFolder
from gristmill.runs.repeat import SKIPPED
from gristmill.runs.unfinished import Unfinished

AGAIN = {
    "rejected": "the stage decided so; another setting or prompt may decide otherwise.",
    "failed": "sent again by `gristmill retry {run}`, once what was wrong is mended.",
    "unreachable": "asked again by the same `gristmill run`, and by `gristmill retry {run}`.",
}
"""What may become of a record that a stage dropped."""

QUOTED = 3
"""Failures of a stopped stage that are quoted under its funnel."""


def again_words(statuses: Iterable[str], run: str) -> str:
    """What may become of dropped records: a line for each status among them."""
    found = Counter(statuses)
    return "\n".join(f"{found[name]} {name}: {words.format(run=run)}" for name, words in AGAIN.items() if found[name])


def stopped_words(left: Unfinished) -> str:
    """The stage that is not done: how far it is, what failed so far in the words of who refused it, how to go on."""
    counts, run = left.counts, left.folder.path.name
    if left.key is None:
        return f"{left.stage} stopped. The same `gristmill run` goes on."
    said = f"{left.stage} stopped: {amount(left.done)} of {counted(left.total, 'record')} done and kept."
    failed = Counter((row["status"], row["detail"]) for row in left.rejects() if row["status"] != "rejected")
    lines = [f"  {n} {status}: {short(detail)}" for (status, detail), n in failed.most_common(QUOTED)]
    lines += [f"  and {more} others: `gristmill show {run} rejects`"] if (more := len(failed) - QUOTED) > 0 else []
    statuses = {"failed": sum(counts.failed.values()), "unreachable": counts.unreachable}
    lines += [again_words(Counter(statuses).elements(), run)] if failed else []
    goes_on = (
        f"{'Then the' if counts.failed else 'The'} same `gristmill run` goes on; what is kept is not paid for again."
    )
    return "\n".join([said, *lines, goes_on])


def funnel_lines(folder: RunFolder, left: Unfinished | None) -> dict[str, dict[str, Any]]:
    """Counts of every stage that has begun. One that is not done has given nothing yet; `done` of its records are."""
    lines = {name: output.meta["counts"] for name, output in folder.outputs().items() if SKIPPED not in output.meta}
    if left is not None:
        lines[left.stage] = {**vars(left.counts), "done": left.done}
    return lines


def funnel_table(folder: RunFolder, left: Unfinished | None, killed: Spent | None) -> str:
    """One line a stage: in, out, and why anything was dropped; one for what `killed` attempts were charged. Columns
    that are zero everywhere are left out."""
    columns: dict[str, list[Any]] = {"stage": [], "in": [], "out": []}
    optional = ("rejected", "failed", "unreachable", "duplicates", "invalid", "truncated", "calls", "tokens", "cost")
    columns |= {name: [] for name in (*optional, "dropped because")}
    for name, counts in funnel_lines(folder, left).items():
        more = counts["more"]
        reasons = sorted({**counts["rejected"], **counts["failed"]}.items(), key=lambda item: -item[1])
        row = {
            "stage": name,
            "in": counts["taken"],
            "out": None if "done" in counts else counts["given"],
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
    if killed is not None:
        cost = money(killed.usd) if killed.usd else ""
        paid = {"stage": KILLED, "calls": killed.calls, "tokens": killed.tokens_in + killed.tokens_out, "cost": cost}
        for column, values in columns.items():
            values.append(paid.get(column))
    shown = [name for name, values in columns.items() if name not in optional or any(values)]
    return table(shown, [list(row) for row in zip(*(columns[name] for name in shown), strict=True)])


def exam_table(folder: RunFolder) -> str:
    """Accuracy of every arm with its interval, and in a line what other reports measured; empty without a report."""
    parts = []
    for stage, output in folder.outputs().items():
        for report in output.only(Report):
            arms: Any = report.data.get("arms", {})
            plain = {name: value for name, value in report.data.items() if type(value) in (int, float)}
            if arms:
                rows = [[name, *_arm(arm)] for name, arm in arms.items()]
                parts.append(table(["exam", "right", "accuracy", "95 % interval", "truncated"], rows))
            elif plain:
                parts.append(f"{stage}: {', '.join(f'{name} {value:.6g}' for name, value in plain.items())}")
    return "\n\n".join(parts)


def _arm(a: dict[str, Any]) -> list[Any]:
    interval = f"{a['low']:.1%} to {a['high']:.1%}"
    return [f"{a['right']}/{a['n']}", f"{a['accuracy']:.1%}", interval, a["truncated"]]
