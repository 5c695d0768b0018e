"""`gristmill init`: a project folder with a first recipe of one's own, with one that a config of Augmentoolkit becomes,
or a package that adds to Gristmill."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli.options import HERE
from gristmill.core.errors import ConfigError

FILES = {"recipe.yaml": "recipe.yaml", "env.example": ".env.example", "gitignore": ".gitignore"}
PACKAGE = {
    "pyproject.toml.txt": "pyproject.toml",
    "README.md.txt": "README.md",
    "recipe.yaml.txt": "recipe.yaml",
    "samples.jsonl.txt": "samples.jsonl",
    "init.py.txt": "src/{{name}}/__init__.py",
    "stages.py.txt": "src/{{name}}/stages.py",
    "short.py.txt": "src/{{name}}/short.py",
    "objective.py.txt": "src/{{name}}/objective.py",
    "sink.py.txt": "src/{{name}}/sink.py",
}
"""Of the folder template/plugin -> of the package, {{name}} being its name in both."""


def register(app: typer.Typer) -> None:
    app.command()(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new project.")],
    plugin: Annotated[
        bool, typer.Option("--plugin", help="Make a package instead, with a stage, an objective and a sink of its own.")
    ] = False,
    from_augmentoolkit: Annotated[
        Path | None, typer.Option(help="Make the recipe of this config file of Augmentoolkit.", metavar="FILE")
    ] = None,
) -> None:
    """Make a project: a recipe, documents/ and .env.example."""
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty", "Name a new folder.")
    if plugin and from_augmentoolkit:
        raise typer.BadParameter("--plugin and --from-augmentoolkit make different things")
    if plugin:
        _package(folder)
    elif from_augmentoolkit:
        _converted(folder, from_augmentoolkit)
    else:
        _project(folder)


def _project(folder: Path) -> None:
    from importlib.resources import files

    from gristmill.core.files import write_text

    template = files("gristmill.cli") / "template"
    for name, target in FILES.items():
        write_text(folder / target, (template / name).read_text("utf-8"))
    (folder / "documents").mkdir()
    typer.echo(
        f"made {folder}\n\n  cd {folder}\n  put your files into documents/\n"
        f"  gristmill check recipe.yaml\n  gristmill run recipe.yaml\n\nRuns and answers are kept in {HERE}/."
    )


def _converted(folder: Path, config: Path) -> None:
    """The recipe, and an account of every name in the config: what has no counterpart stands above the recipe too."""
    from importlib.resources import files

    from gristmill.core.files import write_text
    from gristmill.runs.from_augmentoolkit.convert import convert

    made = convert(config, folder)
    write_text(folder / "recipe.yaml", made.recipe)
    template = files("gristmill.cli") / "template"
    for name in ("env.example", "gitignore"):
        write_text(folder / FILES[name], (template / name).read_text("utf-8"))
    for place, to in made.carried.items():
        typer.echo(f"{place} → {to}")
    if made.left:
        typer.echo(f"\n{len(made.left)} without a counterpart:")
    for place, why in made.left.items():
        typer.echo(f"{place}: {why}")
    typer.echo(f"\nmade {folder}\n\n  cd {folder}\n  gristmill check recipe.yaml\n  gristmill run recipe.yaml")


def _package(folder: Path) -> None:
    from importlib.resources import files

    from gristmill.core.files import write_text

    name = folder.resolve().name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "gristmill":
        raise ConfigError(f"{name} is no name of a package", "Name the folder in lower-case letters, digits and -.")
    template = files("gristmill.cli") / "template" / "plugin"
    for source, target in PACKAGE.items():
        text = (template / source).read_text("utf-8").replace("{{name}}", name)
        write_text(folder / target.replace("{{name}}", name), text)
    typer.echo(
        f"made the package {name} in {folder}\n\n  cd {folder}\n  pip install --editable .\n"
        f"  gristmill check recipe.yaml\n\nKinds: {name}.short, train.{name}. Sink: {name}."
    )
