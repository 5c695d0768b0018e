"""A run's trained model as files for other tools: a folder for transformers, adapters for peft, GGUF for llama.cpp and
Ollama, or its tokenizer alone; each with its card, each proven before it has its name.

Everything is written into a hidden folder beside the target, proven there, synced and renamed: what fails a gate leaves
nothing behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.errors import CheckpointError, ConfigError, InputError
from gristmill.core.files import fsync_folder
from gristmill.core.records import Draft
from gristmill.models import checkpoint
from gristmill.models.card import write_card
from gristmill.models.gguf import Quantization, base_of, describe, prepare
from gristmill.models.ollama import modelfile
from gristmill.models.renderer import Renderer
from gristmill.models.weights import MANIFEST, Weights, at_folder, locate, locate_tokenizer
from gristmill.runs import loading
from gristmill.runs.card import card_of
from gristmill.runs.exports import proven_gguf, require_new, trained_stage
from gristmill.runs.folder import RunFolder
from gristmill.runs.workspace import Workspace

DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}


@dataclass(frozen=True)
class Source:
    """What is exported: a trained model, where it lies in the run, and what its manifest says."""

    workspace: Workspace
    folder: RunFolder
    stage: str
    weights: Weights
    manifest: checkpoint.Manifest

    @property
    def name(self) -> str:
        return str(self.folder.manifest["name"])


@dataclass(frozen=True)
class Options:
    """How a model is written: `quantization` of a GGUF, `dtype` of a folder."""

    quantization: Quantization = "f16"
    dtype: str = "fp32"


def export_model(
    workspace: Workspace, folder: RunFolder, kind: str, to: Path, *, stage: str | None = None, options: Options
) -> Path:
    """Write a run's model as `kind`; gives the folder."""
    require_new(to)
    if kind == "tokenizer":
        return _export_tokenizer(folder, to, stage)
    source = source_of(workspace, folder, stage)
    with _placed(to) as temp:
        proof, told = WRITERS[kind](source, temp, options)
        card = card_of(folder, source.stage, source.manifest, form=kind, proof=proof, loading=told)
        (temp / "README.md").write_text(write_card(card), "utf-8")
        if kind in ("hf", "lora"):
            _seal(temp, source.manifest, proof)
    return to


def source_of(workspace: Workspace, folder: RunFolder, stage: str | None) -> Source:
    """The model that a run trained, its files verified; `stage` chooses among several."""
    name = trained_stage(folder, stage)
    path = folder.path / "checkpoints" / name
    return Source(workspace, folder, name, at_folder(path), checkpoint.verify(path))


def _write_hf(source: Source, temp: Path, options: Options) -> tuple[str, str]:
    """The merged model, in the precision asked for."""
    from gristmill.models.export_gate import prove_folder
    from gristmill.models.merge import write_rounded

    dtype = DTYPES[options.dtype]
    write_rounded(source.weights.path, temp, dtype=dtype)
    read = prove_folder(source.weights, temp, dtype=dtype)
    proof = f"read by transformers in a fresh process; the same token ids and, in {dtype}, the same logits to the bit"
    rounded = "" if dtype == "float32" else f"; {read.divergence:.4f} mean log-probability from the trained float32"
    return proof + rounded, loading.folder(dtype)


def _write_gguf(source: Source, temp: Path, options: Options) -> tuple[str, str]:
    made, same = proven_gguf(source.workspace, source.weights, options.quantization)
    target = temp / f"{source.name}-{options.quantization}.gguf"
    shutil.copyfile(made, target)
    said = modelfile(Renderer.load(source.weights), target.name)
    if said is not None:
        (temp / "Modelfile").write_text(said, "utf-8")
    proof = (
        f"{same['tensors']} tensors compared byte for byte; llama.cpp's greedy tokens agree with transformers' on "
        f"{same['agreement']:.0%} of {same['tokens']}, mean log-probability difference {same['divergence']:.4f}"
    )
    return proof, loading.gguf(target.name, source.name, with_modelfile=said is not None)


def _write_lora(source: Source, temp: Path, options: Options) -> tuple[str, str]:  # noqa: ARG001
    from gristmill.models.export_gate import ADAPTED, prove_adapter

    adapter = _adapter(source)
    shutil.copytree(adapter, temp, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
    base, dtype = _base(source)
    card = card_of(source.folder, source.stage, source.manifest, form="lora", proof="", loading="")
    config = orjson.loads((temp / "adapter_config.json").read_bytes()) | {
        "base_model_name_or_path": card.base_hub or card.base
    }
    (temp / "adapter_config.json").write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    read = prove_adapter(source.weights, temp, base=base, dtype=dtype)
    proof = (
        f"laid over its base by peft in a fresh process it is the merged model: mean log-probability difference "
        f"{read.divergence:.6f}, at most {ADAPTED}"
    )
    return proof, loading.adapter(card.base_hub or card.base, dtype, new=bool(config.get("trainable_token_indices")))


def _write_lora_gguf(source: Source, temp: Path, options: Options) -> tuple[str, str]:  # noqa: ARG001
    """Proven over the base in f16: a base quantised further is further away by what that costs, not by the adapter."""
    from gristmill.models.gate import prove_same
    from gristmill.models.load import require_text
    from gristmill.models.lora_gguf import same_adapter, write_lora

    require_text(source.weights)
    adapter, (base, _) = _adapter(source), _base(source)
    described = describe(base, base_of(base))
    if described is None:
        raise ConfigError("the base's architecture is not mapped to GGUF", "Export --format lora, or gguf.")
    target = temp / f"{source.name}-lora.gguf"
    write_lora(adapter, target, base=described, name=source.name)
    tensors = same_adapter(adapter, target, base=described)
    under = prepare(base, quantization="f16", cache=source.workspace.cache / "gguf")
    same = prove_same(source.weights, under, adapter=target)
    proof = (
        f"{tensors} tensors compared byte for byte; laid over the base in f16, llama.cpp's greedy tokens agree with "
        f"the merged model's on {same.agreement:.0%} of {same.tokens}, mean log-probability difference "
        f"{same.divergence:.4f}"
    )
    return proof, loading.lora_gguf(target.name, base.path.name, base.sha256)


WRITERS: dict[str, Callable[[Source, Path, Options], tuple[str, str]]] = {
    "hf": _write_hf,
    "gguf": _write_gguf,
    "lora": _write_lora,
    "lora-gguf": _write_lora_gguf,
}
"""Each writes into a hidden folder, proves what it wrote, and tells what it found and how the files are loaded."""


def _export_tokenizer(folder: RunFolder, to: Path, stage: str | None) -> Path:
    """The tokenizer of a trained model, or the one that a `train.tokenizer` stage made, with vocabulary and merges."""
    from gristmill.models.tokenizer import save_plain_vocabulary

    outputs = folder.outputs()
    made = [n for n, o in outputs.items() if any("folder" in r.marks for r in o if isinstance(r, Draft))]
    name = (stage or made[-1]) if made and stage in (None, *made) else trained_stage(folder, stage)
    found = folder.path / "checkpoints" / name
    renderer = Renderer.load(locate_tokenizer(str(found.resolve()), base=Path()))
    with _placed(to) as temp:
        renderer.save_tokenizer(temp)
        save_plain_vocabulary(renderer.vocabulary, temp)
        (temp / "README.md").write_text(loading.tokenizer(name, str(folder.manifest["name"]), renderer), "utf-8")
        if Renderer.load(locate_tokenizer(str(temp.resolve()), base=Path())).template_hash != renderer.template_hash:
            raise CheckpointError("what was written is not the tokenizer of the run", "Report this: it is a defect.")
    return to


def _adapter(source: Source) -> Path:
    path = source.folder.path / "checkpoints" / f"{source.stage}.adapter"
    if not path.is_dir():
        raise InputError(f"stage {source.stage} trained no adapters", "Export the whole model: --format hf or gguf.")
    checkpoint.verify(path)
    return path


def _base(source: Source) -> tuple[Weights, str]:
    """The base under the adapters, where it was, and the precision it had; another file in its place is refused."""
    stated: dict[str, Any] = source.manifest.metadata["base"]
    found = locate(stated["path"], base=Path(source.folder.manifest["base"]), hasher=source.workspace.store.file_hash)
    if found.sha256 != stated["sha256"]:
        raise CheckpointError(
            f"the base of {source.name} is another one now: {stated['path']}", "Put back the one it was trained from."
        )
    return found, str(stated["dtype"])


def _seal(temp: Path, trained: checkpoint.Manifest, proof: str) -> None:
    """Give the folder a manifest of its files, as every checkpoint has one; it goes on from the trained one's."""
    inner = temp / "sealed"
    files = [path for path in temp.iterdir() if path.is_file()]
    metadata = {**trained.metadata, "exported_from": trained.sha256, "proof": proof}
    with checkpoint.staged(inner, metadata=metadata) as staged:
        for path in files:
            path.rename(staged / path.name)
    for path in list(inner.iterdir()):
        path.rename(temp / path.name)
    inner.rmdir()


@contextmanager
def _placed(to: Path) -> Iterator[Path]:
    """A hidden folder that becomes `to`, durably, when all is written; gone on any error."""
    to.parent.mkdir(parents=True, exist_ok=True)
    temp = to.with_name(f".{to.name}.{os.getpid()}.tmp")
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir()
    try:
        yield temp
        for path in temp.iterdir():
            fd = os.open(path, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        fsync_folder(temp)
        if to.exists():
            to.rmdir()  # empty, as `require_new` saw
        temp.rename(to)
        fsync_folder(to.parent)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
