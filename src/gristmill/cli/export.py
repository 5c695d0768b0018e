"""`gristmill export`: a run's samples as a data set, its rows as a table, or its trained model as files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gristmill.cli.options import HERE, Run, WorkspaceFolder, open_run


class Format(StrEnum):
    openai = "openai"
    sharegpt = "sharegpt"
    alpaca = "alpaca"
    chatml = "chatml"
    text = "text"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
    hf = "hf"
    gguf = "gguf"


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    run: Run,
    format: Annotated[
        Format, typer.Option(help="Of samples, of rows (jsonl, csv, parquet), or of the model (hf, gguf).")
    ],
    to: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    stage: Annotated[str | None, typer.Option(help="Stage whose output is exported; the last that fits.")] = None,
    workspace: WorkspaceFolder = HERE,
) -> None:
    """Write a run's samples, its rows or its model for other tools."""
    from gristmill.runs.exports import export_data, export_model, export_rows

    place, folder = open_run(workspace, run)
    models, tables = (Format.hf, Format.gguf), (Format.jsonl, Format.csv, Format.parquet)
    write = export_model if format in models else export_rows if format in tables else export_data
    typer.echo(write(place, folder, str(format), to, stage=stage))
