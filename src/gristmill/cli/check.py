"""`gristmill check`: all that is wrong with a recipe, at once, before anything is paid for; and what it will take.

Free of charge, unless a canary is asked for: that many records of every stage that asks a model are really asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli.options import HERE, Json, Sets, WorkspaceFolder, open_workspace, print_json, table

if TYPE_CHECKING:
    from gristmill.runs.plan import Plan
    from gristmill.runs.search import Sweep, Values


def register(app: typer.Typer) -> None:
    app.command()(check)


def check(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")] = None,
    sets: Sets = None,
    canary: Annotated[
        int | None, typer.Option(help="Ask so many records of each stage, and say what the run will take.", min=1)
    ] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")] = False,
    workspace: WorkspaceFolder = HERE,
    json: Json = False,
) -> None:
    """Check a recipe: types, models, keys, prompts, files.

    With --canary it says what the run will take: calls, tokens, dollars, hours, samples, training steps.

    Nothing is asked without --canary. What a canary asks counts against the recipe's budget, and the run finds the
    answers: they are not paid for twice.
    """
    if schema:
        from gristmill.runs.schema import recipe_schema

        print_json(recipe_schema())
        return
    from gristmill.runs.advice import advice
    from gristmill.runs.sinks import check_sink

    if recipe is None:
        raise typer.BadParameter("name a recipe, or ask for --schema")
    plan, trials = _plan(recipe, sets, json=json)
    for name, sink in plan.recipe.sinks.items():
        check_sink(name, sink)
    found = _estimate(plan, workspace, canary, quiet=json) if canary else None
    if json:
        more: dict[str, Any] = {"estimate": found} if found else {}
        more |= {"trials": trials} if plan.recipe.sweep else {}
        print_json({"ok": True, "stages": _stages(plan), "advice": advice(plan), **more})
    elif found:
        from gristmill.cli.forecast import forecast

        typer.echo(forecast(found, plan.recipe.budget.model_dump()))
    else:
        rows = [list(stage.values()) for stage in _stages(plan)]
        typer.echo(table(["stage", "kind", "after", "takes", "gives"], rows))
        typer.echo(f"\n{recipe} is sound: {len(plan.recipe.stages)} stages, {len(plan.recipe.models)} models.")
        for line in advice(plan):
            typer.echo(f"Advice: {line}")
        if unknown := _unknown(plan):
            typer.echo(unknown)
        if plan.recipe.sweep:
            typer.echo(f"\n{_trials(plan.recipe.sweep, trials)}")


def _plan(recipe: Path, sets: list[str] | None, *, json: bool) -> tuple[Plan, list[Values]]:
    """The plan, and the trials of its sweep as far as they are known before one has run: each is checked too."""
    from gristmill.runs.plan import make_plan
    from gristmill.runs.source import RecipeError

    try:
        plan = make_plan(recipe, sets)
        if plan.recipe.sweep is None:
            return plan, []
        from gristmill.runs.sweep import trial_plans

        found = [values for values, _ in trial_plans(plan)]
        return plan, found if plan.recipe.sweep.by != "optuna" else []
    except RecipeError as error:
        if not json:
            raise
        problems = [
            {"file": p.place.file, "line": p.place.line, "message": p.message, "hint": p.hint} for p in error.problems
        ]
        print_json({"ok": False, "problems": problems})
        raise typer.Exit(error.exit_code) from error


def _trials(sweep: Sweep, trials: list[Values]) -> str:
    """What `gristmill sweep` will try."""
    from gristmill.runs.report.sweep import short_names, shown

    compared = f"compared by {sweep.metric}, the {'greatest' if sweep.goal == 'max' else 'least'} is the best"
    if not trials:
        return f"`gristmill sweep`: {sweep.samples} trials by optuna, each chosen by those before it, {compared}."
    names = short_names(list(sweep.keys))
    rows = [[number, *(shown(values[key]) for key in names)] for number, values in enumerate(trials, 1)]
    said = f"`gristmill sweep`: {len(trials)} trials by {sweep.by}, {compared}."
    return f"{table(['trial', *names.values()], rows)}\n\n{said}"


def _stages(plan: Plan) -> list[dict[str, Any]]:
    return [
        {
            "stage": node.name,
            "kind": node.kind,
            "needs": ", ".join(node.needs),
            "takes": _types(node.stage.takes),
            "gives": _types(node.config.given(node.stage.gives)),
        }
        for node in plan.nodes
    ]


def _types(types: tuple[type, ...]) -> str:
    return " | ".join(t.__name__ for t in types)


def _estimate(plan: Plan, folder: Path, records: int, *, quiet: bool) -> dict[str, Any]:
    """Try the recipe out and work out what it will take."""
    from gristmill.cli.display import Lines
    from gristmill.runs.canary import try_out
    from gristmill.runs.estimate import estimate

    place = open_workspace(folder)
    listeners = () if quiet else (Lines(lambda text: typer.echo(text, err=True), lambda: None),)
    run, trials = try_out(plan, place, records=records, listeners=listeners)
    return estimate(plan, place, run, trials, records=records)


def _unknown(plan: Plan) -> str:
    """What nobody can say yet about a recipe that asks models for money."""
    from gristmill.cli.forecast import paid_roles

    paid = paid_roles(plan)
    if not paid:
        return ""
    said = f"What {', '.join(paid)} will cost is not known yet: add --canary 20 to ask 20 records of each stage."
    unpriced = [role for role, known in paid.items() if not known]
    return said + (f"\nNobody has said the price of {', '.join(unpriced)}: give `price`." if unpriced else "")
