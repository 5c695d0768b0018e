"""What leaves a run: its samples as a data set, its rows as a table, its trained model ready to be served. As files the
model leaves by `model_exports`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.errors import ConfigError, InputError
from gristmill.core.files import write_text
from gristmill.core.records import Checkpoint, Sample
from gristmill.models.gguf import Quantization, prepare
from gristmill.models.weights import Weights, at_folder
from gristmill.runs.folder import Output, RunFolder
from gristmill.runs.row_files import Rows, write_rows
from gristmill.runs.workspace import Workspace

QUANTIZATION: Quantization = "q8_0"
"""Of served models: half the size of f16, and what exams use, so that what is served is what was examined."""


@dataclass(frozen=True)
class Served:
    """A trained model ready to be served: proven to be what was trained."""

    name: str
    weights: Weights
    gguf: Path


def served_model(workspace: Workspace, folder: RunFolder, *, stage: str | None = None) -> Served:
    """A run's checkpoint as a GGUF file, after the proof that both give the same tokens and nearly the same numbers."""
    weights = trained(folder, stage)
    return Served(str(folder.manifest["name"]), weights, proven_gguf(workspace, weights, QUANTIZATION)[0])


def proven_gguf(workspace: Workspace, weights: Weights, quantization: Quantization) -> tuple[Path, dict[str, Any]]:
    """The GGUF of some weights, proven once, and what the proof found; it stands beside the file and names its hash."""
    from gristmill.models.gate import prove_same

    gguf = prepare(weights, quantization=quantization, cache=workspace.cache / "gguf")
    proof = gguf.with_suffix(".proof.json")
    stated = {"gguf": workspace.store.file_hash(gguf), "weights": weights.sha256}
    if proof.exists() and (found := orjson.loads(proof.read_bytes())).items() >= stated.items():
        return gguf, found
    found = {**stated, **asdict(prove_same(weights, gguf))}
    write_text(proof, orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    return gguf, found


def trained(folder: RunFolder, stage: str | None) -> Weights:
    """The weights that a run trained; `stage` chooses among several."""
    return at_folder(folder.path / "checkpoints" / trained_stage(folder, stage))


def trained_stage(folder: RunFolder, stage: str | None) -> str:
    """The stage that trained a model: the last one, if none is named."""
    names = [name for name, output in folder.outputs().items() if any(output.only(Checkpoint))]
    if not names or (stage is not None and stage not in names):
        has = f"It has: {', '.join(names)}." if names else "It has not finished a training stage."
        raise InputError(f"run {folder.path.name} has no trained model" + (f" of {stage}" if stage else ""), has)
    return stage or names[-1]


def export_data(workspace: Workspace, folder: RunFolder, kind: str, to: Path, *, stage: str | None = None) -> Path:  # noqa: ARG001
    """A stage's samples in one of the formats of `curate.export`, with its card."""
    from gristmill.curate.export import write_export

    require_new(to)
    found = _samples_of(folder, stage)
    write_export(found, to, formats=[kind])
    return to


def export_review(workspace: Workspace, folder: RunFolder, kind: str, to: Path, *, stage: str | None = None) -> Path:  # noqa: ARG001
    """A stage's samples as sheets that people fill in; `curate.review` reads them back."""
    from gristmill.curate.review.sheet import write_sheet

    require_new(to)
    write_sheet(_samples_of(folder, stage), to)
    return to


def export_rows(workspace: Workspace, folder: RunFolder, kind: str, to: Path, *, stage: str | None = None) -> Path:  # noqa: ARG001
    """A stage's rows as a table of their columns alone: `<stage>.jsonl`, `.csv` or `.parquet`."""
    require_new(to)
    for name, output in _chosen(folder, stage).items():
        target = to / f"{name}.{kind}"
        if write_rows(target, Rows(output)):
            return target
    raise InputError("this run has no rows to export", "Choose a stage that gives rows with --stage.")


def _samples_of(folder: RunFolder, stage: str | None) -> list[Sample]:
    for output in _chosen(folder, stage).values():
        found = [r for r in output if isinstance(r, Sample)]
        if found:
            return found
    raise InputError("this run has no samples to export", "Choose a stage that gives samples with --stage.")


def _chosen(folder: RunFolder, stage: str | None) -> dict[str, Output]:
    """The outputs to look at, the last first."""
    outputs = folder.outputs()
    if stage is not None and stage not in outputs:
        raise InputError(f"no finished stage is called {stage}", f"Finished: {', '.join(outputs) or 'none'}.")
    return {stage: outputs[stage]} if stage else dict(reversed(outputs.items()))


def require_new(to: Path) -> None:
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConfigError(f"{to} exists and is not empty", "Name a new folder.")
