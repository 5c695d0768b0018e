"""`gristmill stop`: ask a running run to stop at the next safe place."""

from __future__ import annotations

import typer

from gristmill.cli.options import HERE, Run, WorkspaceFolder, open_run
from gristmill.core.errors import InputError


def register(app: typer.Typer) -> None:
    app.command()(stop)


def stop(run: Run = "latest", workspace: WorkspaceFolder = HERE) -> None:
    """Stop a run. Nothing is lost; the same `gristmill run` goes on."""
    _, folder = open_run(workspace, run)
    if not folder.running():
        raise InputError(f"run {folder.path.name} is not running", "See `gristmill status`.")
    folder.stop_file.touch()
    typer.echo(f"asked {folder.path.name} to stop")
