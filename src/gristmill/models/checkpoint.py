"""Checkpoints that are whole or not there. Written to a hidden folder, every file synced and hashed, then renamed.

A folder without a manifest that fits its files does not exist as a checkpoint. Only safetensors and JSON go in; the
manifest holds no time, so equal training gives equal bytes. A disk that is full, before or while one is written, costs
that one alone.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.errors import CheckpointError, GristmillError
from gristmill.core.files import fsync_folder, sha256_file
from gristmill.core.records import digest_of
from gristmill.models.weights import MANIFEST

_MAKE_ROOM = (
    "Free disk space and run the same command again: it goes on from the checkpoint before, which is untouched."
)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
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
def staged(folder: Path, *, metadata: dict[str, Any], size: int = 0) -> Iterator[Path]:
    """Write files into the folder this yields; on success it becomes `folder`, durably; on any error it is gone.

    `size`: bytes that are going to be written, where that is known: without the room for them nothing is begun. An
    older `folder` of that name is replaced, once the new one is whole. The metadata may be filled while writing.
    """
    temp = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*.tmp"):
            shutil.rmtree(left)
        _require_room(folder, size)
        temp.mkdir()
        yield temp
        _seal(temp, metadata)
        _put(temp, folder)
    except OSError as error:
        raise _unwritten(folder, error, written=_size(temp)) from error
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _seal(temp: Path, metadata: dict[str, Any]) -> None:
    """Every file on the disk and in the manifest; then the manifest, under a hash of its own, and the folders."""
    told = {"format": 2, "files": [asdict(_sealed(path, temp)) for path in _files(temp)], "metadata": metadata}
    manifest = told | {"seal": digest_of(told)}
    (temp / MANIFEST).write_bytes(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
    _sync(temp / MANIFEST)
    for inner in {path.parent for path in temp.rglob("*")}:
        fsync_folder(inner)


def _put(temp: Path, folder: Path) -> None:
    """In place of what is there, which is deleted only when the new one stands."""
    old = _hidden(folder)
    if folder.exists():
        folder.rename(old)
    temp.rename(folder)
    fsync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


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
    """The manifest, as it was written; the files are not looked at."""
    try:
        data = orjson.loads((folder / MANIFEST).read_bytes())
        seal = data.pop("seal")
        if seal != digest_of(data):
            raise _damaged(folder, f"{MANIFEST} is not what was written")
        files = tuple(FileEntry(**file) for file in data["files"])
        return Manifest(files, dict(data["metadata"]), sha256_file(folder / MANIFEST))
    except FileNotFoundError:
        raise _damaged(folder, f"{MANIFEST} is missing") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(folder, f"{MANIFEST} cannot be read ({error})") from error


def newest_valid(root: Path, *, require: Callable[[Manifest], object] = lambda _: None) -> Newest:
    """The checkpoint to go on from: the one with the highest step among those that are whole.

    `require` raises a CheckpointError where going on from it needs more than itself, and that is not to be had.
    """
    ordered, skipped = _by_step(root)
    for folder in ordered:
        try:
            manifest = verify(folder)
            require(manifest)
            return Newest(folder, manifest, tuple(skipped))
        except GristmillError as error:
            skipped.append(Skipped(folder, error.message))
    return Newest(None, None, tuple(skipped))


def keep_last(root: Path, last: int, *, written: Path, spare: Collection[Path] = ()) -> list[Path]:
    """Delete all but the last `last` checkpoints and those in `spare`. Gives what went.

    `written` is the one that has just been made: it is known to be whole, and stays whatever its step is, so that there
    is always one to go on from.
    """
    ordered, _ = _by_step(root)
    others = [folder for folder in ordered if folder != written]
    kept = {written, *others[: max(last, 1) - 1], *spare}
    gone = [folder for folder in ordered if folder not in kept]
    for folder in gone:
        remove(folder)
    return gone


def set_aside(folder: Path, home: Path) -> Path:
    """Move what cannot be gone on with into `home`, where nothing is read again or deleted. Gives its new place."""
    home.mkdir(parents=True, exist_ok=True)
    names = chain([folder.name], (f"{folder.name}-{n}" for n in count(2)))
    target = next(home / name for name in names if not (home / name).exists())
    folder.rename(target)
    fsync_folder(home)
    return target


def sweep(root: Path) -> None:
    """Delete what writers that were killed left under `root`: it takes room, and nothing will ever name it."""
    for left in root.glob(".*.tmp"):
        shutil.rmtree(left)


def remove(folder: Path) -> None:
    """Out of sight at once, then deleted: a kill in between leaves no half checkpoint under its name."""
    hidden = _hidden(folder)
    folder.rename(hidden)
    shutil.rmtree(hidden)


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


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.{os.getpid()}.gone.tmp")


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder)) if folder.is_dir() else 0


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder.parent).free
    if size > free:
        raise CheckpointError(
            f"no room for checkpoint {folder.name}: it takes {_mb(size)}, and {_mb(free)} are free in {folder.parent}",
            _MAKE_ROOM,
        )


def _unwritten(folder: Path, error: OSError, *, written: int) -> CheckpointError:
    what = f"checkpoint {folder.name} could not be written: {error.strerror or error}"
    if error.errno not in _FULL:
        return CheckpointError(what, f"Look at the disk that holds {folder.parent}. Older checkpoints are untouched.")
    free = shutil.disk_usage(folder.parent).free
    return CheckpointError(f"{what} after {_mb(written)} ({_mb(free)} are free in {folder.parent})", _MAKE_ROOM)


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _damaged(folder: Path, what: str) -> CheckpointError:
    return CheckpointError(f"checkpoint {folder.name}: {what}", "Go on from another checkpoint, or train again.")
