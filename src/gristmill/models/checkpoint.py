"""Checkpoints that are whole or not there. Written to a hidden folder, every file synced and hashed, then renamed.

A folder without a manifest that fits its files does not exist as a checkpoint. Only safetensors and JSON go in; the
manifest holds no time, so equal training gives equal bytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.errors import CheckpointError, GristmillError
from gristmill.core.files import fsync_folder, sha256_file
from gristmill.models.weights import MANIFEST

_ALLOWED = {".safetensors", ".json", ".jinja", ".txt", ".model", ".md"}


@dataclass(frozen=True)
class FileEntry:
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds. `metadata`: step, base weights, template hash, versions: whatever its writer states."""

    files: tuple[FileEntry, ...]
    metadata: dict[str, Any]
    sha256: str  # of the manifest file: the checkpoint's name in records

    @property
    def step(self) -> int:
        return int(self.metadata.get("step", 0))


@dataclass(frozen=True)
class Skipped:
    folder: Path
    why: str


@dataclass(frozen=True)
class Newest:
    """The newest checkpoint that is whole (None if there is none), and the newer ones that are not, with reasons."""

    folder: Path | None
    manifest: Manifest | None
    skipped: tuple[Skipped, ...]


@contextmanager
def staged(folder: Path, *, metadata: dict[str, Any]) -> Iterator[Path]:
    """Write files into the folder this yields; on success it becomes `folder`, durably; on any error it is gone.

    An older `folder` of that name is replaced. The metadata may be filled while writing.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(left)
    temp = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    temp.mkdir()
    try:
        yield temp
        files = [_sealed(path, temp) for path in _files(temp)]
        manifest = {"format": 1, "files": [asdict(f) for f in files], "metadata": metadata}
        (temp / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        _sync(temp / MANIFEST)
        for inner in {path.parent for path in temp.rglob("*")}:
            fsync_folder(inner)
        if folder.exists():
            _remove(folder)
        temp.rename(folder)
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def verify(folder: Path) -> Manifest:
    """The manifest, once every file has been found to be what it says. Otherwise a CheckpointError names the file."""
    manifest = read_manifest(folder)
    found = {str(path.relative_to(folder)): path for path in _files(folder)}
    for file in manifest.files:
        path = found.pop(file.name, None)
        if path is None:
            raise _damaged(folder, f"{file.name} is missing")
        size = path.stat().st_size
        if size != file.size:
            raise _damaged(folder, f"{file.name} has {size} bytes instead of {file.size}")
        if sha256_file(path) != file.sha256:
            raise _damaged(folder, f"{file.name} is not what was written")
    if found:
        raise _damaged(folder, f"{min(found)} is not named in its manifest")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest as written; the files are not looked at."""
    try:
        raw = (folder / MANIFEST).read_bytes()
        data = orjson.loads(raw)
        files = tuple(FileEntry(**file) for file in data["files"])
        return Manifest(files, dict(data["metadata"]), sha256_file(folder / MANIFEST))
    except FileNotFoundError:
        raise _damaged(folder, f"{MANIFEST} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{MANIFEST} cannot be read ({error})") from error


def newest_valid(root: Path) -> Newest:
    """The checkpoint to go on from: the one with the highest step among those that are whole."""
    ordered, skipped = _by_step(root)
    for folder in ordered:
        try:
            return Newest(folder, verify(folder), tuple(skipped))
        except GristmillError as error:
            skipped.append(Skipped(folder, error.message))
    return Newest(None, None, tuple(skipped))


def keep_last(root: Path, count: int, *, spare: Collection[Path] = ()) -> list[Path]:
    """Delete all but the last `count` checkpoints, those in `spare`, and the newest whole one. Gives what went."""
    ordered, _ = _by_step(root)
    kept = {*ordered[: max(count, 1)], *spare, newest_valid(root).folder}
    gone = [folder for folder in ordered if folder not in kept]
    for folder in gone:
        _remove(folder)
    return gone


def _by_step(root: Path) -> tuple[list[Path], list[Skipped]]:
    """Folders with a readable manifest, newest first; and those without."""
    readable: list[tuple[int, Path]] = []
    skipped: list[Skipped] = []
    folders = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")] if root.is_dir() else []
    for folder in sorted(folders):
        try:
            readable.append((read_manifest(folder).step, folder))
        except CheckpointError as error:
            skipped.append(Skipped(folder, error.message))
    return [folder for _, folder in sorted(readable, reverse=True)], skipped


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST and not p.name.startswith("."))


def _sealed(path: Path, folder: Path) -> FileEntry:
    if path.suffix not in _ALLOWED:
        raise CheckpointError(f"{path.name} may not be part of a checkpoint", f"Write {', '.join(sorted(_ALLOWED))}.")
    _sync(path)
    return FileEntry(str(path.relative_to(folder)), path.stat().st_size, sha256_file(path))


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _remove(folder: Path) -> None:
    """Out of sight at once, then deleted: a kill in between leaves no half checkpoint under its name."""
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.gone.tmp")
    folder.rename(hidden)
    shutil.rmtree(hidden)


def _damaged(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {folder.name}: {what}", "Go on from another checkpoint, or train again.")
