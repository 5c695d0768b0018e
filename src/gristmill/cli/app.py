"""The command `gristmill`: its verbs, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from gristmill import __version__
from gristmill.cli import chat, check, doctor, export, init, models, run, serve, show, status, stop
from gristmill.core.errors import GristmillError, not_installed

app = typer.Typer(
    name="gristmill",
    help="Documents in, model out, and proof that it learned.",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for verb in (init, check, run, status, show, stop, serve, chat, export, models, doctor):
    verb.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def main() -> None:
    """Entry point. A GristmillError ends in its message, hint and exit code; a defect shows its traceback."""
    try:
        app()
    except GristmillError as error:
        _complain(error)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        named = not_installed(error, "gristmill")
        if named is None:
            raise
        _complain(named)
        sys.exit(named.exit_code)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:  # the reader (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _complain(error: GristmillError) -> None:
    if "--json" in sys.argv:
        import orjson

        body = {"error": type(error).__name__, "message": error.message, "hint": error.hint, "exit": error.exit_code}
        typer.echo(orjson.dumps(body).decode())
    typer.secho(f"error: {error.message}", fg="red", err=True)
    if error.hint:
        typer.echo(f"  {error.hint}", err=True)
