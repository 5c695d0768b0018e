"""The command `gristmill`: its verbs, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import os
import sys
from types import TracebackType
from typing import Annotated

import typer
from typer.exceptions import TyperException

from gristmill import __version__
from gristmill.cli import (
    chat,
    check,
    compare,
    doctor,
    export,
    init,
    models,
    retry,
    run,
    serve,
    show,
    status,
    stop,
    sweep,
    verify,
)
from gristmill.cli.options import print_json
from gristmill.core.errors import GristmillError, exhausted, not_installed

DEBUG = "GRISTMILL_DEBUG"
"""Environment variable: 1 shows the traceback of a defect where it happens."""

app = typer.Typer(
    name="gristmill",
    help="Documents in, model out, and proof that it learned.",
    rich_markup_mode=None,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for verb in (init, check, run, sweep, status, show, compare, verify, stop, retry, serve, chat, export, models, doctor):
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
    """Entry point. A GristmillError ends in its message, hint and exit code; anything else in `_defect`."""
    if os.environ.get(DEBUG) != "1":
        sys.excepthook = _defect
    try:
        command = typer.main.get_command(app)  # `app()` would put typer's own hook for defects in place of ours
        code = command(standalone_mode=False)  # a reader that has gone (head, less) ends in exit code 1, in silence
    except GristmillError as error:
        code = _complain(error)
    except TyperException as error:
        _json(type(error).__name__, error.format_message(), "See --help.", error.exit_code)
        error.show()  # type: ignore[attr-defined]  # every one that is raised has it
        code = error.exit_code
    except ModuleNotFoundError as error:
        named = not_installed(error, "gristmill")
        if named is None:
            raise
        code = _complain(named)
    except (MemoryError, OSError) as error:
        if not exhausted(error):
            raise
        code = _complain(GristmillError(f"this machine gives no more: {error}", "Free memory or disk space."))
    except typer.Abort:
        typer.echo("stopped", err=True)
        code = 130
    sys.exit(code)


def _defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What nobody foresaw, as one line; its traceback goes into a file, for those who mend it."""
    from tempfile import NamedTemporaryFile
    from traceback import format_exception

    from gristmill.core.secrets import scrub

    told = scrub("".join(format_exception(kind, error, trace)))
    with NamedTemporaryFile("w", prefix="gristmill-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.write(told)
    said = f"{kind.__name__}: {error}".rstrip(": ")
    _complain(GristmillError(said, f"This was not foreseen. Its traceback is in {file.name}; {DEBUG}=1 shows it here."))


def _complain(error: GristmillError) -> int:
    from gristmill.core.secrets import scrub

    message = scrub(error.message)
    _json(type(error).__name__, message, error.hint, error.exit_code)
    typer.secho(f"error: {message}", fg="red", err=True)
    if error.hint:
        typer.echo(f"  {error.hint}", err=True)
    return error.exit_code


def _json(error: str, message: str, hint: str, code: int) -> None:
    """A program that asked for JSON gets one document, whatever happens."""
    if "--json" in sys.argv:
        print_json({"error": error, "message": message, "hint": hint, "exit": code})
