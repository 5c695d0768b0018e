"""`gristmill sweep`: the trials of a recipe, one run each, and which was best."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli.options import HERE, Json, LogLevel, RecipeFile, Sets, WorkspaceFolder, open_workspace, print_json
from gristmill.core.logs import LEVEL

if TYPE_CHECKING:
    from gristmill.runs.sweep import Line, Sweeping, Trial


def register(app: typer.Typer) -> None:
    app.command()(sweep)


def sweep(
    recipe: RecipeFile,
    name: Annotated[str | None, typer.Option(help="Call the sweep by this name; the recipe's, if not given.")] = None,
    sets: Sets = None,
    keys: Annotated[
        list[str] | None,
        typer.Option("--sweep", help="Values of a key: a.b=1,2,3 or a.b='{from: 1, to: 3}'. May be repeated."),
    ] = None,
    workspace: WorkspaceFolder = HERE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    log_level: LogLevel = "info",
    json: Json = False,
) -> None:
    """Try the values that a recipe's `sweep:` names, and compare. The same command goes on where a sweep ended."""
    from gristmill.cli.run import catch_signals
    from gristmill.runs.plan import make_plan
    from gristmill.runs.sweep import Sweeping

    os.environ[LEVEL] = log_level
    command = ["gristmill", "run", str(recipe), *(part for text in sets or [] for part in ("--set", text))]
    sweeping = Sweeping(make_plan(recipe, sets, sweeps=keys), open_workspace(workspace), name=name, command=command)
    stop = threading.Event()
    catch_signals(stop)
    for trial in sweeping.trials():
        _run(sweeping, trial, stop, quiet=quiet or json)
    _tell(sweeping, json=json)


def _run(sweeping: Sweeping, trial: Trial, stop: threading.Event, *, quiet: bool) -> None:
    from gristmill.cli.display import make_display
    from gristmill.runs.report.sweep import short_names, shown

    if not quiet:
        names = short_names(list(trial.values))
        values = "  ".join(f"{names[key]}={shown(value)}" for key, value in trial.values.items())
        typer.echo(f"trial {trial.number}{_of(sweeping)}: {values}", err=True)
    with make_display(trial.plan, sweeping.workspace, quiet=quiet) as display:
        line = sweeping.run(trial, listeners=(display,), stop=stop)
    if not quiet:
        typer.echo(_words(sweeping, line), err=True)


def _of(sweeping: Sweeping) -> str:
    return f" of {sweeping.count}" if sweeping.count else ""


def _words(sweeping: Sweeping, line: Line) -> str:
    if line.value is None:
        return f"trial {line.number}: {line.state}" + (f": {line.error}" if line.error else "")
    best = ", the best so far" if sweeping.best is not None and sweeping.best.number == line.number else ""
    return f"trial {line.number}: {sweeping.sweep.metric} {line.value:.5g}{best}"


def _tell(sweeping: Sweeping, *, json: bool) -> None:
    """The table, the best trial and how to have it again; by the exit code, whether all went well."""
    failed = sweeping.failed
    code = sweeping.ended.exit_code if sweeping.ended else failed[0].exit if failed else 0
    if json:
        print_json(sweeping.as_json())
        raise typer.Exit(code)
    _print(sweeping.as_json())
    for line in failed:
        typer.echo(f"trial {line.number} {line.state}: {line.error}", err=True)
    if sweeping.ended:
        raise sweeping.ended
    raise typer.Exit(code)


def _print(data: dict[str, Any]) -> None:
    from gristmill.cli.options import table
    from gristmill.runs.report.sweep import trial_table

    headers, rows = trial_table(data)
    typer.echo(table(headers, rows))
    best = next((trial for trial in data["trials"] if trial["number"] == data["best"]), None)
    if best is not None:
        typer.echo(f"\nbest: trial {best['number']}, {data['sweep']['metric']} {best['value']:.5g}, run {best['run']}")
        typer.echo(f"  {data['command']}")
    typer.echo(f"\nsweep   {data['folder']}\npage    {data['folder']}/sweep.html")
