"""`gristmill init`: a project folder with a first recipe of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli.options import HERE
from gristmill.core.errors import ConfigError
from gristmill.core.files import write_text

FILES = {"recipe.yaml": "recipe.yaml", "env.example": ".env.example", "gitignore": ".gitignore"}


def register(app: typer.Typer) -> None:
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new project.")],
) -> None:
    """Make a project: a recipe, documents/ and .env.example."""
    from importlib.resources import files

    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", "Name a new folder.")
    template = files("gristmill.cli") / "template"
    for name, target in FILES.items():
        write_text(folder / target, (template / name).read_text("utf-8"))
    (folder / "documents").mkdir()
    typer.echo(
        f"made {folder}\n\n  cd {folder}\n  put your files into documents/\n"
        f"  gristmill check recipe.yaml\n  gristmill run recipe.yaml\n\nRuns and answers are kept in {HERE}/."
    )
