"""`gristmill check`: everything that is wrong with a recipe, at once, before anything is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli.options import Json, Sets, print_json, table


def register(app: typer.Typer) -> None:
    app.command()(check)


def check(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")] = None,
    sets: Sets = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of recipes, for editors.")] = False,
    json: Json = False,
) -> None:
    """Check a recipe: types, models, keys, prompts, files. Nothing runs."""
    if schema:
        from gristmill.runs.schema import recipe_schema

        print_json(recipe_schema())
        return
    if recipe is None:
        raise typer.BadParameter("name a recipe, or ask for --schema")
    from gristmill.runs.plan import make_plan
    from gristmill.runs.source import RecipeError

    try:
        plan = make_plan(recipe, sets)
    except RecipeError as error:
        if json:
            problems = [
                {"file": p.place.file, "line": p.place.line, "message": p.message, "hint": p.hint}
                for p in error.problems
            ]
            print_json({"ok": False, "problems": problems})
            raise typer.Exit(error.exit_code) from error
        raise
    rows = [[n.name, n.kind, ", ".join(n.needs), _types(n.stage.takes), _types(n.config.given(n.stage.gives))] for n in plan.nodes]
    if json:
        keys = ("stage", "kind", "needs", "takes", "gives")
        print_json({"ok": True, "stages": [dict(zip(keys, row, strict=True)) for row in rows]})
        return
    typer.echo(table(["stage", "kind", "after", "takes", "gives"], rows))
    typer.echo(f"\n{recipe} is sound: {len(plan.recipe.stages)} stages, {len(plan.recipe.models)} models.")


def _types(types: tuple[type, ...]) -> str:
    return " | ".join(t.__name__ for t in types)
