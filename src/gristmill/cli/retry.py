"""`gristmill retry`: send again what failed, and nothing else."""

from __future__ import annotations

from typing import Annotated

import typer

from gristmill.cli.options import HERE, Json, LogLevel, Run, WorkspaceFolder, open_run


def register(app: typer.Typer) -> None:
    app.command()(retry)


def retry(
    run: Run = "latest",
    workspace: WorkspaceFolder = HERE,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    log_level: LogLevel = "info",
    json: Json = False,
) -> None:
    """Send what failed once more, and nothing else.

    Of a run that came to its end, what follows is brought up to date. Any other stays as it is: where it is not
    finished, `gristmill run` goes on with it.
    """
    from gristmill.cli.run import carry_out
    from gristmill.runs.identity import plan_of

    place, folder = open_run(workspace, run)
    carry_out(plan_of(folder, place), place, quiet=quiet, json=json, log=log_level, retry=True)
