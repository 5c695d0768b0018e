"""Options that several verbs share, and how they print."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.core.logs import LEVEL, Level

if TYPE_CHECKING:
    from gristmill.runs.folder import RunFolder
    from gristmill.runs.workspace import Workspace

RecipeFile = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", metavar="RECIPE")]
Run = Annotated[str, typer.Argument(help="A run: its id, its name, or latest.", metavar="RUN")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="Change a value: a.b=value. May be repeated.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
WorkspaceFolder = Annotated[
    Path, typer.Option("--workspace", help="Folder of runs and store.", envvar="GRISTMILL_WORKSPACE")
]
HERE = Path(".gristmill")
LogLevel = Annotated[Level, typer.Option("--log-level", envvar=LEVEL, help="debug: log each call to a model too.")]


def open_workspace(folder: Path) -> Workspace:
    from gristmill.runs.workspace import Workspace

    return Workspace(folder)


def open_run(folder: Path, run: str) -> tuple[Workspace, RunFolder]:
    from gristmill.runs.folder import RunFolder

    workspace = open_workspace(folder)
    return workspace, RunFolder(workspace.find_run(run))


def print_json(value: Any) -> None:
    import orjson

    typer.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode())


def short(text: object) -> str:
    """As much of a text as fits into a line."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= 90 else flat[:89] + "…"


def table(headers: list[str], rows: list[list[Any]]) -> str:
    """Plain columns, numbers to the right; survives any terminal and any pipe."""
    cells = [headers, *([("" if v is None else str(v)) for v in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headers))]
    right = [all(isinstance(row[i], int | float | None) for row in rows) and bool(rows) for i in range(len(headers))]
    lines = [
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join(lines)
