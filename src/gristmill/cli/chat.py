"""`gristmill chat`: talk to a run's model in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gristmill.cli.options import HERE, Run, WorkspaceFolder, open_run

if TYPE_CHECKING:
    from gristmill.serve.chat import Conversation


def register(app: typer.Typer) -> None:
    app.command()(chat)


def chat(
    run: Run = "latest",
    question: Annotated[str | None, typer.Option("--ask", "-a", help="Ask this and leave.")] = None,
    stage: Annotated[str | None, typer.Option(help="Training stage, when the run has several.")] = None,
    workspace: WorkspaceFolder = HERE,
) -> None:
    """Talk to a run's trained model. An empty line or Ctrl-D ends it."""
    from gristmill.runs.exports import served_model
    from gristmill.serve.chat import Conversation, local_server

    place, folder = open_run(workspace, run)
    model = served_model(place, folder, stage=stage)
    with local_server(model.gguf, weights=model.weights, model_id=model.name) as url:
        talk = Conversation(url)
        if question:
            _answer(talk, question)
            return
        typer.echo(f"{model.name}; an empty line ends it")
        while line := _read():
            _answer(talk, line)


def _answer(talk: Conversation, line: str) -> None:
    for piece in talk.say(line):
        typer.echo(piece, nl=False)
    typer.echo()


def _read() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""
