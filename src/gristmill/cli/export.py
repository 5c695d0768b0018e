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
    masked = "masked"
    preference = "preference"
    rating = "rating"
    labelled = "labelled"
    review = "review"
    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"
    hf = "hf"
    gguf = "gguf"
    lora = "lora"
    lora_gguf = "lora-gguf"
    tokenizer = "tokenizer"


class Quantization(StrEnum):
    f16 = "f16"
    q8_0 = "q8_0"


class Dtype(StrEnum):
    bf16 = "bf16"
    fp16 = "fp16"
    fp32 = "fp32"


MODELS = (Format.hf, Format.gguf, Format.lora, Format.lora_gguf, Format.tokenizer)
TABLES = (Format.jsonl, Format.csv, Format.parquet)


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    run: Run,
    format: Annotated[
        Format,
        typer.Option(
            help="Of samples (review: a sheet to fill in), of rows (jsonl, csv, parquet), or of the model (hf, gguf, "
            "lora, lora-gguf, tokenizer)."
        ),
    ],
    to: Annotated[Path, typer.Option(help="Folder to write; must be new or empty.")],
    stage: Annotated[str | None, typer.Option(help="Stage whose output is exported; the last that fits.")] = None,
    quantization: Annotated[Quantization | None, typer.Option(help="Of gguf; f16 if not given.")] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Of hf; fp32, as trained, if not given.")] = None,
    push: Annotated[str | None, typer.Option(help="Send the model to a hub, too, as OWNER/NAME.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new hub repository private.")] = False,
    workspace: WorkspaceFolder = HERE,
) -> None:
    """Write a run's samples, its rows or its model for other tools.

    A model is proven before it has its name: what was written is what was trained.
    """
    from gristmill.runs.exports import export_data, export_review, export_rows

    _refuse_misplaced(format, quantization, dtype, push, private=private)
    place, folder = open_run(workspace, run)
    if format in MODELS:
        from gristmill.runs.model_exports import Options, export_model

        options = Options(quantization=(quantization or Quantization.f16).value, dtype=(dtype or Dtype.fp32).value)
        typer.echo(export_model(place, folder, str(format), to, stage=stage, options=options))
    else:
        write = export_rows if format in TABLES else export_review if format is Format.review else export_data
        typer.echo(write(place, folder, str(format), to, stage=stage))
    if push is not None:
        from gristmill.models.hub_transfer import push as send

        typer.echo(send(to, push, private=private))


def _refuse_misplaced(
    format: Format, quantization: Quantization | None, dtype: Dtype | None, push: str | None, *, private: bool
) -> None:
    """An option that would do nothing is an error."""
    wrong = {
        "--quantization belongs to --format gguf": quantization is not None and format is not Format.gguf,
        "--dtype belongs to --format hf": dtype is not None and format is not Format.hf,
        "--push sends models": push is not None and format not in MODELS,
        "--private belongs to --push": private and push is None,
    }
    for said, is_wrong in wrong.items():
        if is_wrong:
            raise typer.BadParameter(said)
