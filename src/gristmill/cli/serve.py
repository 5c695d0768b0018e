"""`gristmill serve`: a run's model behind an OpenAI-compatible address on this machine; a classifier sorts there."""

from __future__ import annotations

from typing import Annotated

import typer

from gristmill.cli.options import HERE, Run, WorkspaceFolder, open_run


def register(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    run: Run = "latest",
    stage: Annotated[str | None, typer.Option(help="Training stage, when the run has several.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 picks a free one.")] = 8000,
    api_key: Annotated[str | None, typer.Option(help="env:NAME of the key that callers must send.")] = None,
    workspace: WorkspaceFolder = HERE,
) -> None:
    """Serve a run's trained model at an OpenAI-compatible address.

    /v1/models, /v1/chat/completions, /health. A classifier answers at /classify instead of the chat. Ctrl-C ends it.
    """
    from gristmill.models.load import score_labels
    from gristmill.runs.exports import served_model, trained
    from gristmill.serve.server import serve as serve_model
    from gristmill.serve.server import serve_sorter

    place, folder = open_run(workspace, run)
    weights = trained(folder, stage)
    if score_labels(weights):
        name = str(folder.manifest["name"])
        serve_sorter(
            weights,
            model_id=name,
            host=host,
            port=port,
            api_key=api_key,
            announce=lambda url: typer.echo(f"{name} at {url}/classify   (Ctrl-C ends it)"),
        )
        return
    model = served_model(place, folder, stage=stage)
    serve_model(
        model.gguf,
        weights=model.weights,
        model_id=model.name,
        host=host,
        port=port,
        api_key=api_key,
        announce=lambda url: typer.echo(f"{model.name} at {url}/v1   (Ctrl-C ends it)"),
    )
