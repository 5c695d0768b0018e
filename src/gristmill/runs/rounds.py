"""Rounds of `repeat` while a run goes on. What decides whether another is needed is read from what the stages before
it left in the run's folder, so that a run that goes on after any end decides the same."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

from gristmill.core.errors import ConfigError
from gristmill.core.records import Report
from gristmill.runs.folder import Output
from gristmill.runs.measures import measured
from gristmill.runs.plan import Node, Plan
from gristmill.runs.repeat import SKIPPED, called


def over(plan: Plan, node: Node, outputs: Mapping[str, Output]) -> str | None:
    """Why a stage of a later round is not needed: the target is met, or a stage that the round rests on had nothing
    more to give. None where it is."""
    if node.round < 2:
        return None
    for other in takewhile(lambda other: other.name != node.name, plan.nodes):
        if other.round in (node.round - 1, node.round) and other.round > 1 and not outputs[other.name].count:
            return str(outputs[other.name].meta.get(SKIPPED) or f"{other.name} gave nothing")
    return reached(plan, outputs, node.round - 1)


def reached(plan: Plan, outputs: Mapping[str, Output], number: int) -> str | None:
    """How the target was met in a round, in words; None where it was not, or there is none."""
    target = plan.recipe.repeat.target if plan.recipe.repeat else None
    value = standing(plan, outputs, number)
    if target is None or value is None or not target.met(value):
        return None
    return f"{called(target.stage, number)}.{target.metric} is {value:g}"


def standing(plan: Plan, outputs: Mapping[str, Output], number: int) -> float | None:
    """What the target's stage gave for it in a round. None without a target, where that round did not come to it, and
    where its report says that there is no such number: a kappa of labels that are all the same."""
    target = plan.recipe.repeat.target if plan.recipe.repeat else None
    output = outputs.get(called(target.stage, number)) if target else None
    if target is None or output is None or SKIPPED in output.meta:
        return None
    numbers = measured(output)
    if target.metric not in numbers and any(
        report.data.get(target.metric, 0) is None for report in output.only(Report)
    ):
        return None
    if target.metric not in numbers:
        known = ", ".join(numbers)
        raise ConfigError(f"`repeat.until`: {target.stage} gives no `{target.metric}`", f"It gives: {known}.")
    return numbers[target.metric]


def missed(plan: Plan, node: Node, outputs: Mapping[str, Output]) -> str | None:
    """After the last stage of the last round: what is said where the target was not met."""
    repeat = plan.recipe.repeat
    last = [other.name for other in plan.nodes if other.round][-1:]
    if repeat is None or [node.name] != last or repeat.target is None:
        return None
    for number in range(repeat.times, 0, -1):
        value = standing(plan, outputs, number)
        if value is not None:
            is_met = repeat.target.met(value)
            return None if is_met else f"`repeat` ends with {repeat.target.metric} at {value:g}: not {repeat.until}"
    return f"`repeat` ends with no value of {repeat.target.metric}: not {repeat.until}"
