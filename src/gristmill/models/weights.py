"""Finds weights by name (catalogue, hub), GGUF path or folder, and gives them their one name: a hash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import orjson

from gristmill.core.errors import CheckpointError, ConfigError
from gristmill.core.files import sha256_file
from gristmill.core.records import digest_of
from gristmill.models import catalogue, hub
from gristmill.models.gguf_file import is_gguf

MANIFEST = "manifest.json"
_PARTS = {".safetensors", ".json", ".jinja", ".model", ".txt"}
"""What of an HF folder decides how a model behaves: tensors, configs, template, vocabulary."""


@dataclass(frozen=True)
class Weights:
    """Weights on disk. `sha256` is that of the GGUF file, or the digest of the hashes of the folder's files."""

    path: Path
    form: Literal["gguf", "hf", "checkpoint"]
    sha256: str
    source: str = field(default="", compare=False)
    """Where they came from, if that is a name: the catalogue's, or `hub:OWNER/NAME@COMMIT`."""


def locate(model: str, *, base: Path, hasher: Callable[[Path], str] = sha256_file) -> Weights:
    """The weights that a recipe's `model` names; paths are relative to `base`. The store's `hasher` remembers."""
    if model in catalogue.CATALOGUE:
        path = catalogue.require(model, hasher=hasher)
        return Weights(path, "gguf", catalogue.CATALOGUE[model].sha256, model)
    if model.startswith(hub.PREFIX):
        kept = hub.require(model)
        found = at_folder(kept.folder, hasher=hasher)
        hub.check(kept, found.sha256)
        return replace(found, source=kept.source)
    path = base / Path(model).expanduser()
    if path.is_file() and is_gguf(path):
        return Weights(path, "gguf", hasher(path))
    if path.is_dir():
        return at_folder(path, hasher=hasher)
    what = "is not a GGUF file" if path.is_file() else "is neither in the catalogue nor on disk"
    known = ", ".join(sorted(catalogue.CATALOGUE))
    raise ConfigError(
        f"the model {model} {what}",
        f"Name one of: {known}; a GGUF file; a folder with safetensors; or hub:OWNER/NAME.",
    )


def tokenizer_files(name: str, *, base: Path) -> list[Path]:
    """The files that decide how a tokenizer cuts text; none for a catalogue name, which stands for one fixed file."""
    if name in catalogue.CATALOGUE:
        return []
    path = hub.require(name).folder if name.startswith(hub.PREFIX) else base / Path(name).expanduser()
    return [path] if path.is_file() else sorted(path.glob("*token*.json"))


def locate_tokenizer(name: str, *, base: Path, hasher: Callable[[Path], str] = sha256_file) -> Weights:
    """Where a tokenizer lies: any model's, or a folder with a tokenizer.json and no model. Loads no weights."""
    folder = base / Path(name).expanduser()
    if name in catalogue.CATALOGUE or not (folder / "tokenizer.json").is_file() or any(folder.glob("*.safetensors")):
        return locate(name, base=base, hasher=hasher)
    parts = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in _PARTS and p.name != MANIFEST)
    return Weights(folder, "hf", digest_of({p.name: hasher(p) for p in parts}))


def at_folder(path: Path, *, hasher: Callable[[Path], str] = sha256_file) -> Weights:
    """The weights in a folder: a checkpoint's by its manifest, otherwise an HF folder's by its files."""
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise ConfigError(
            f"the folder {path} holds no model",
            "A model folder has config.json and *.safetensors; weights in pickle files are never loaded.",
        )
    if (path / MANIFEST).is_file():
        return Weights(path, "checkpoint", _manifest_digest(path))
    parts = sorted(p for p in path.iterdir() if p.is_file() and p.suffix in _PARTS)
    return Weights(path, "hf", digest_of({p.name: hasher(p) for p in parts}))


def _manifest_digest(folder: Path) -> str:
    """What the manifest says its files are. That they really are is `checkpoint.verify`'s work, done before loading."""
    try:
        files = orjson.loads((folder / MANIFEST).read_bytes())["files"]
        return digest_of({file["name"]: file["sha256"] for file in files})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the manifest of {folder} cannot be read: {error}", "Use another checkpoint.") from error
