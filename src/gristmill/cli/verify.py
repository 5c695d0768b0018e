"""`gristmill verify`: make a run again from its manifest, without asking a model, and compare."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.cli.options import HERE, Json, Run, WorkspaceFolder, open_run, print_json, short, table

if TYPE_CHECKING:
    from gristmill.runs.verify import Verified

NAMED = 12
"""Changes of the environment that are shown; --json has them all."""


def register(app: typer.Typer) -> None:
    app.command()(verify)


def verify(
    run: Run = "latest",
    stage: Annotated[str | None, typer.Option(help="Only this stage, and what it rests on.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep what was made for the comparison.")] = False,
    workspace: WorkspaceFolder = HERE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    json: Json = False,
) -> None:
    """Make a run again, asking no model, and compare to the byte."""
    from gristmill.cli.display import Lines
    from gristmill.cli.run import catch_signals
    from gristmill.runs.verify import verify as made_again

    place, folder = open_run(workspace, run)
    stop = threading.Event()
    catch_signals(stop)
    listeners = () if quiet or json else (Lines(lambda text: typer.echo(text, err=True), lambda: None),)
    found = made_again(place, folder, stage=stage, keep=keep, listeners=listeners, stop=stop)
    error = found.error()
    if json:
        print_json(found.as_json())
        raise typer.Exit(error.exit_code if error else 0)
    _tell(found)
    if error:
        raise error
    typer.echo(f"\nrun {found.run} is the same to the byte, made again here.")


def _tell(found: Verified) -> None:
    rows = [[s.stage, s.kind, s.verdict, s.records or None, s.rejects or None, s.files or None] for s in found.stages]
    typer.echo(table(["stage", "kind", "verdict", "records", "rejects", "files"], rows))
    for stage in found.stages:
        if stage.verdict != "identical":
            typer.echo(f"\n{stage.stage}: {stage.verdict}")
            for why in stage.why:
                typer.echo(f"  {why}")
        if stage.first is not None:
            typer.echo(f"  {stage.first.what}")
            for name, then, now in stage.first.fields:
                typer.echo(f"    {name}\n      was  {then}\n      is   {now}")
    _tell_changes(found)
    if found.scratch is not None:
        typer.echo(f"\nmade for the comparison, and kept: {found.scratch}")


def _tell_changes(found: Verified) -> None:
    changes = {**found.changes.inputs, **found.changes.models, **found.changes.environment}
    if changes:
        shown = list(changes.items())[:NAMED]
        rows = [[name, short(then), short(now)] for name, (then, now) in shown]
        typer.echo(f"\n{table(['not as it was', 'then', 'now'], rows)}")
        if len(changes) > NAMED:
            typer.echo(f"… and {len(changes) - NAMED} more (--json)")
    stages: dict[str, list[str]] = {}
    for stage, told in found.changes.soft.items():
        for words in told:
            stages.setdefault(words, []).append(stage)
    for words, concerned in stages.items():
        typer.echo(f"\n{words}: {', '.join(concerned)}")
