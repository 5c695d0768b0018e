"""The page of a sweep: the best trial, the metric against each key, and every trial in a table."""

from __future__ import annotations

from html import escape
from math import isfinite
from typing import Any

from gristmill.runs.figures import counted, money, span
from gristmill.runs.report.scatter import Point, scatter
from gristmill.runs.report.sheet import grid, head, section, sheet
from gristmill.runs.search import written

Data = dict[str, Any]
"""What `sweep.json` holds."""


def sweep_page(data: Data) -> str:
    metric, keys = data["sweep"]["metric"], list(data["sweep"]["keys"])
    plots = [section(f"{metric} by {key}", scatter(_points(data, key), x_name=key, y_name=metric)) for key in keys]
    errors = [[str(trial["number"]), trial["error"]] for trial in data["trials"] if trial["error"]]
    tables = [section("Trials", grid(*trial_table(data)))]
    tables += [section("Did not finish", grid(["trial", "why"], errors, names=2))]
    return sheet(data["name"], [_head(data), *plots, *tables])


def trial_table(data: Data) -> tuple[list[str], list[list[str]]]:
    """Headers and a row for each trial, in the terminal and on the page. The best one has a star."""
    sweep, trials = data["sweep"], data["trials"]
    names = short_names(list(sweep["keys"]))
    priced = any(trial["spent"].get("usd") for trial in trials)
    headers = ["trial", *names.values(), sweep["metric"], "took", *(["cost"] if priced else []), "state"]
    rows = []
    for trial in trials:
        star = "*" if trial["number"] == data["best"] else ""
        cells = [shown(trial["values"][key]) for key in names]
        cost = [money(trial["spent"].get("usd", 0.0))] if priced else []
        figure = "" if trial["value"] is None else f"{trial['value']:.5g}"
        rows.append([f"{trial['number']}{star}", *cells, figure, span(trial["seconds"]), *cost, trial["state"]])
    return headers, rows


def short_names(keys: list[str]) -> dict[str, str]:
    """As much of each key's end as tells it from the others."""
    for parts in range(1, 9):
        names = {key: ".".join(key.split(".")[-parts:]) for key in keys}
        if len(set(names.values())) == len(keys):
            return names
    return {key: key for key in keys}


def shown(value: Any) -> str:
    """A value as people read it: numbers to four digits."""
    number = _number(value)
    return written(value) if number is None else f"{number:.4g}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _head(data: Data) -> str:
    sweep, trials = data["sweep"], data["trials"]
    sub = f"{counted(len(trials), 'trial')} of {data['recipe']} by {sweep['by']} · {sweep['goal']} {sweep['metric']}"
    best = next((trial for trial in trials if trial["number"] == data["best"]), None)
    if best is None:
        return head(data["name"], sub)
    values = ", ".join(f"{name} {shown(best['values'][key])}" for key, name in short_names(list(sweep["keys"])).items())
    said = f"{sweep['metric']} {best['value']:.5g} with {values} (trial {best['number']}, run {best['run']})"
    return head(data["name"], sub, said) + f"<pre>{escape(data['command'])}</pre>"


def _points(data: Data, key: str) -> list[Point]:
    found = []
    for trial in data["trials"]:
        value = trial["value"]
        if value is not None and isfinite(value):
            tip = f"trial {trial['number']}: " + ", ".join(f"{k} {shown(v)}" for k, v in trial["values"].items())
            at = trial["values"][key]
            best = trial["number"] == data["best"]
            found.append(Point(shown(at), _number(at), value, f"{tip}: {value:.5g}", strong=best))
    return found
