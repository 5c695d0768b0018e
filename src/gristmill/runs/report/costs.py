"""The page's money: what every stage asked, paid and lost, and how many calls its models bore while it did."""

from __future__ import annotations

from html import escape
from typing import Any

from gristmill.core.events import read_events
from gristmill.runs.figures import money
from gristmill.runs.folder import Output, RunFolder
from gristmill.runs.report import charts

COLUMNS = ("calls", "tokens_in", "tokens_cached", "tokens_out", "tokens_reasoning", "unanswered")
HEADS = ("calls", "tokens in", "of them cached", "tokens out", "of them reasoning", "charged, no answer")

FEWEST, POINTS = 20, 500
"""Points of a curve: with fewer there is nothing to see, with more nothing more."""


def cost_table(paid: list[dict[str, Any]], outputs: dict[str, Output]) -> str:
    """A line per stage and role that asked a model. Columns that are zero everywhere are left out."""
    if not paid:
        return ""
    shown = [i for i, name in enumerate(COLUMNS) if any(line[name] for line in paid)]
    priced = any(line["nano_usd"] for line in paid)
    heads = ["stage", "model", *(HEADS[i] for i in shown), *(["cost", "a record"] if priced else [])]
    rows = []
    for line in paid:
        given = outputs[line["stage"]].count if line["stage"] in outputs else 0
        usd = line["nano_usd"] / 1e9
        costs = [money(usd), money(usd / given) if given else ""] if priced else []
        cells = [f"{line[COLUMNS[i]]:,}" for i in shown] + costs
        rows.append(_row([line["stage"], line["role"]], cells))
    if len(paid) > 1:
        sums = [f"{sum(line[COLUMNS[i]] for line in paid):,}" for i in shown]
        costs = [money(sum(line["nano_usd"] for line in paid) / 1e9), ""] if priced else []
        rows.append(_row(["all", ""], sums + costs))
    head = "".join(f"<th{' class=n' if i > 1 else ''}>{escape(name)}</th>" for i, name in enumerate(heads))
    return f"<div class=scroll><table><tr>{head}</tr>{''.join(rows)}</table></div>"


def _row(names: list[str], figures: list[str]) -> str:
    cells = [f"<td>{escape(name)}</td>" for name in names] + [f"<td class=n>{figure}</td>" for figure in figures]
    return f"<tr>{''.join(cells)}</tr>"


def limits(folder: RunFolder) -> str:
    """Calls in flight and their limit over the last attempt, at every provider whose limit has moved."""
    begun = 0.0
    lines: dict[str, list[tuple[float, int, int]]] = {}
    for event in read_events(folder.path / "events.ndjson"):
        if event["event"] == "run.started":
            begun, lines = event["time"], {}
        for line in event.get("lines") or ():
            who = ", ".join(line["roles"]) or line["model"]
            lines.setdefault(who, []).append((event["time"] - begun, line["limit"], line["in_flight"]))
    moved = {w: line for w, line in lines.items() if len(line) >= FEWEST and len({limit for _, limit, _ in line}) > 1}
    return "".join(f"<h3>{escape(who)}</h3>{_curve(line)}" for who, line in moved.items())


def _curve(line: list[tuple[float, int, int]]) -> str:
    unit, seconds = ("minutes", 60) if line[-1][0] > 300 else ("seconds", 1)
    seen = [(at / seconds, limit, busy) for at, limit, busy in line[:: max(1, len(line) // POINTS)]]
    series = {"limit": [(at, float(n)) for at, n, _ in seen], "in flight": [(at, float(n)) for at, _, n in seen]}
    return charts.curves(series, x_name=unit, y_name="calls")
