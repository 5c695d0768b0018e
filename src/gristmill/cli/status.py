"""`gristmill status`: what is running, how far it is and what it costs, and what became of what ran."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gristmill.cli.options import HERE, Json, WorkspaceFolder, open_workspace, print_json, table

if TYPE_CHECKING:
    from gristmill.runs.status import Watch

LOOK = 0.5
"""Seconds between two looks at a run that is watched."""


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(
    run: Annotated[str | None, typer.Argument(help="A run: its id, its name, or latest.", metavar="[RUN]")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on showing it until it ends.")] = False,
    workspace: WorkspaceFolder = HERE,
    json: Json = False,
) -> None:
    """Show a run's progress, cost and what is left; or all runs."""
    from gristmill.runs.status import Watch, run_states

    place = open_workspace(workspace)
    if run is None and not watch:
        _all(run_states(place), json)
        return
    seen = Watch(place, run or "latest")
    if watch:
        _watch(seen, json=json)
    elif json:
        print_json(seen.state())
    else:
        _draw(seen.state())


def _all(found: list[dict[str, Any]], json: bool) -> None:
    if json:
        print_json(found)
        return
    keys = ("name", "id", "state", "stage", "started")
    rows = [[state[key] for key in keys] for state in found]
    typer.echo(table(["name", "run", *keys[2:]], rows) if rows else "no runs yet")


def _draw(state: dict[str, Any]) -> None:
    from rich.console import Console

    from gristmill.cli.picture import Picture

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    console.print(Picture(state))
    console.print(f"folder {state['folder']}", markup=False, soft_wrap=True)


def _watch(seen: Watch, *, json: bool) -> None:
    """Until the run ends, or Ctrl-C: the run goes on without anyone watching."""
    show = _as_json if json else _live if sys.stdout.isatty() else _lines
    with suppress(KeyboardInterrupt):
        show(seen)


def _live(seen: Watch) -> None:
    from rich.live import Live

    from gristmill.cli.picture import Picture

    with Live(Picture(seen.state()), auto_refresh=False) as live:
        while (state := seen.state())["state"] == "running":
            live.update(Picture(state), refresh=True)
            time.sleep(LOOK)
        live.update(Picture(state), refresh=True)


def _lines(seen: Watch) -> None:
    from gristmill.cli.display import Lines

    said = Lines(typer.echo, seen.state)
    state = seen.state()
    _draw(state)
    while state["state"] == "running":
        time.sleep(LOOK)
        for event in seen.news():
            said(event)
        state = seen.state()
        if state["state"] != "running":
            _draw(state)


def _as_json(seen: Watch) -> None:
    """One document a line, whenever something has changed."""
    import orjson

    state = seen.state()
    typer.echo(orjson.dumps(state).decode())
    while state["state"] == "running":
        time.sleep(LOOK)
        if seen.news() or not seen.folder.running():
            state = seen.state()
            typer.echo(orjson.dumps(state).decode())
