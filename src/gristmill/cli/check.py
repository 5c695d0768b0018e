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
    from gristmill.runs.sinks import check_sink

    if recipe is None:
        raise typer.BadParameter("name a recipe, or ask for --schema")
    plan = _plan(recipe, sets, json=json)
    for name, sink in plan.recipe.sinks.items():
        check_sink(name, sink, plan.recipe.base)
    found = _estimate(plan, workspace, canary, quiet=json) if canary else None
    if json:
        print_json({"ok": True, "stages": _stages(plan), **({"estimate": found} if found else {})})
    elif found:
        from gristmill.cli.forecast import forecast

        typer.echo(forecast(found, plan.recipe.budget.model_dump()))
    else:
        rows = [list(stage.values()) for stage in _stages(plan)]
        typer.echo(table(["stage", "kind", "after", "takes", "gives"], rows))
        typer.echo(f"\n{recipe} is sound: {len(plan.recipe.stages)} stages, {len(plan.recipe.models)} models.")
        if unknown := _unknown(plan):
            typer.echo(unknown)


def _plan(recipe: Path, sets: list[str] | None, *, json: bool) -> Plan:
    from gristmill.runs.plan import make_plan
    from gristmill.runs.source import RecipeError

    try:
        return make_plan(recipe, sets)
    except RecipeError as error:
        if not json:
            raise
        problems = [
            {"file": p.place.file, "line": p.place.line, "message": p.message, "hint": p.hint} for p in error.problems
        ]
        print_json({"ok": False, "problems": problems})
        raise typer.Exit(error.exit_code) from error


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
