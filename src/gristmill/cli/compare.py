"""`gristmill compare`: runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli.options import HERE, Json, WorkspaceFolder, open_workspace, print_json


def register(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    runs: Annotated[list[str], typer.Argument(help="Two runs or more: ids, names, latest.", metavar="RUN RUN…")],
    to: Annotated[
        Path | None, typer.Option(help="Where the page is written; below the workspace, if not given.")
    ] = None,
    workspace: WorkspaceFolder = HERE,
    json: Json = False,
) -> None:
    """Compare runs: recipes, funnels, data, losses, exams, cost."""
    from gristmill.cli.options import table
    from gristmill.core.files import write_text
    from gristmill.core.records import digest_of
    from gristmill.runs.compare import compare as side_by_side
    from gristmill.runs.compare import overlays
    from gristmill.runs.folder import RunFolder
    from gristmill.runs.report.compare import compare_page, tables

    place = open_workspace(workspace)
    folders = [RunFolder(place.find_run(run)) for run in runs]
    data = side_by_side(folders, place.root)
    page = to or place.root / "comparisons" / f"{digest_of([run['id'] for run in data['runs']])[:12]}.html"
    write_text(page, compare_page(data, overlays(folders, place.root)))
    if json:
        print_json({**data, "page": str(page)})
        return
    for title, (headers, rows) in tables(data).items():
        typer.echo(f"{title}\n{table(headers, rows)}\n")
    typer.echo(f"page    {page}")
