"""`gristmill status`: what is running, and what became of what ran."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from gristmill.cli.options import HERE, Json, WorkspaceFolder, open_workspace, print_json, table


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(
    run: Annotated[str | None, typer.Argument(help="A run: its id, its name, or latest.", metavar="[RUN]")] = None,
    workspace: WorkspaceFolder = HERE,
    json: Json = False,
) -> None:
    """Show a run's state and progress; without RUN, all runs."""
    from gristmill.runs.status import run_status

    place = open_workspace(workspace)
    names = [run] if run else [str(m["id"]) for m in place.manifests()]
    found = [run_status(place, name) for name in names]
    if json:
        print_json(found if run is None else found[0])
    elif run is None:
        rows = [[s["name"], s["id"], s["state"], s["stage"], s["started"]] for s in found]
        typer.echo(table(["name", "run", "state", "stage", "started"], rows) if rows else "no runs yet")
    else:
        _tell(found[0], place.root)


def _tell(state: dict[str, Any], root: Path) -> None:
    typer.echo(f"{state['name']} ({state['id']}): {state['state']}")
    if state["progress"]:
        typer.echo(f"stage {state['stage']}: {state['progress']}")
    if state["error"]:
        typer.echo(f"{state['error']}\n  {state['hint']}")
    spent = state["spent"]
    typer.echo(f"spent {spent['calls']} calls, {spent['tokens_in']} tokens in, {spent['tokens_out']} out")
    typer.echo(f"folder {root / 'runs' / state['id']}")
