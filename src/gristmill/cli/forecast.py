"""What a run will take, in words: a line per stage, the planner's line, and what no one can know yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gristmill.cli.options import table
from gristmill.runs.figures import amount, money, span

if TYPE_CHECKING:
    from gristmill.runs.plan import Plan

Estimate = dict[str, Any]

UNKNOWN = ("train.", "evaluate.", "generate.")
"""Kinds whose time and cost are missing from an estimate when they were left out of it; the others cost nothing."""


def forecast(found: Estimate, budget: dict[str, Any]) -> str:
    """The whole of an estimate, for `check`."""
    parts = (_table(found["stages"]), f"to come: {planner_line(found, budget)}", _notes(found))
    return "\n\n".join(part for part in parts if part)


def first_line(found: Estimate | None, plan: Plan) -> str:
    """What `run` says before it spends anything: the estimate, or how to get one where there is something to pay."""
    if found is not None:
        budget = plan.recipe.budget.model_dump()
        return f"estimate of {found['made']}, by {found['canary']} records a stage: {planner_line(found, budget)}"
    if not paid_roles(plan):
        return ""
    return "What this will cost is not known: `gristmill check RECIPE --canary 20` asks 20 records a stage and says it."


def paid_roles(plan: Plan) -> dict[str, bool]:
    """The roles in use that cost money, or may: whether anyone has said their price."""
    from gristmill.llm.prices import FREE, price_of

    roles = dict.fromkeys(role for node in plan.nodes for role in node.roles)
    prices = {role: price_of(plan.recipe.models[role]) for role in roles}
    return {role: price is not None for role, price in prices.items() if price != FREE}


def planner_line(found: Estimate, budget: dict[str, Any]) -> str:
    """One line: calls, tokens, dollars, hours, samples, training steps; and whether the budget is enough."""
    total = found["total"]
    parts = []
    if total["calls"][1]:
        parts = [f"{_between(total['calls'], amount)} calls", f"{_between(_tokens(total), amount)} tokens"]
    if total["usd"][1] or found["unpriced"]:
        parts.append(_between(total["usd"], money) + (" and what has no price" if found["unpriced"] else ""))
    parts.append(_between(total["seconds"], span) + _without(found["stages"]))
    if found["samples"]:
        parts.append(f"{_between(found['samples'], amount)} samples")
    parts += [f"{_between(steps, amount)} training steps ({name})" for name, steps in found["steps"].items()]
    return f"{', '.join(parts)}{_over(found, budget)}"


def _without(stages: dict[str, Estimate]) -> str:
    """The stages that are not in it because nobody can know yet."""
    left = dict.fromkeys(s["entry"] for s in stages.values() if s["how"] == "left" and s["kind"].startswith(UNKNOWN))
    return f" without {' and '.join(left)}" if left else ""


def _tokens(total: Estimate) -> list[float]:
    return [a + b for a, b in zip(total["tokens_in"], total["tokens_out"], strict=True)]


def _over(found: Estimate, budget: dict[str, Any]) -> str:
    """Which budgets what is spent and what is to come will pass, or may."""
    coming = {**found["total"], "tokens": _tokens(found["total"])}
    said = []
    for name, limit in budget.items():
        low, high = (value + found["spent"].get(name, 0) for value in coming[name])
        if limit is not None and high > limit:
            shown = {"usd": money, "seconds": span}.get(name, lambda n, name=name: f"{amount(n)} {name}")(limit)
            said.append(f"{'more' if low > limit else 'perhaps more'} than the budget of {shown} (budget.{name})")
    return f". That is {' and '.join(said)}: the run would pause there" if said else ""


def _table(stages: dict[str, Estimate]) -> str:
    columns: dict[str, Callable[[Estimate], str]] = {
        "records": lambda s: _between(s["records"], amount),
        "done": lambda s: amount(s["kept"]) if s["kept"] else "",
        "calls": lambda s: _between(s["calls"], amount),
        "tokens in": lambda s: _between(s["tokens_in"], amount),
        "out": lambda s: _between(s["tokens_out"], amount),
        "cost": lambda s: _between(s["usd"], money),
        "time": lambda s: _between(s["seconds"], span),
        "gives": lambda s: _between(s["given"], amount),
    }
    keys = dict(
        zip(columns, ("records", "kept", "calls", "tokens_in", "tokens_out", "usd", "seconds", "given"), strict=True)
    )
    shown = [name for name in columns if any(keys[name] in stage for stage in stages.values())]
    rows = [
        [name, *(columns[column](stage) if keys[column] in stage else "" for column in shown)]
        for name, stage in stages.items()
    ]
    return table(["stage", *shown], rows)


def _between(found: list[float], show: Callable[[float], str]) -> str:
    """Both ends of a range, or the one figure that they come to."""
    low, high = show(found[0]), show(found[1])
    return low if low == high else f"{low} to {high}"


def _notes(found: Estimate) -> str:
    lines = []
    left = {s["entry"]: s for s in reversed(found["stages"].values()) if s["how"] == "left"}
    for entry, stage in reversed(left.items()):
        known = "; its steps are, not its time" if entry in found["steps"] else ""
        lines.append(f"{entry} is not estimated: {stage['why']}{known}.")
    again = dict.fromkeys(s["entry"].partition(".")[0] for s in found["stages"].values() if s["how"] == "again")
    if again:
        lines.append(f"{', '.join(again)}: in a later round as in the first, or not at all; nobody knows how many run.")
    for role in found["unpriced"]:
        lines.append(f"Nobody has said what `{role}` costs: give models.{role}.price (prices of {found['prices']}).")
    for role in found["untimed"]:
        lines.append(f"How long `{role}` takes was not measured.")
    spent = found["spent"]
    if spent["calls"]:
        paid = f", {money(spent['usd'])}" if spent["usd"] else ""
        lines.append(f"Paid so far: {amount(spent['calls'])} calls{paid}. The run finds these answers.")
    return "\n".join(lines)
