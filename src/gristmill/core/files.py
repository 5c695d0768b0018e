"""Files that are whole or not there: temp file, fsync, rename, fsync of the folder. And hashes of what lies on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from gristmill.core.errors import InputError


def fsync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write to a temp file beside `path`. On success it replaces `path`, durably; on an error nothing is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temp, mode, encoding=None if "b" in mode else "utf-8") as file:  # noqa: PTH123
            yield file
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
        fsync_folder(path.parent)
    finally:
        with suppress(FileNotFoundError):
            temp.unlink()


def write_text(path: Path, text: str) -> None:
    with atomic(path, "w") as file:
        file.write(text)


def sha256_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", "Check the path and its permissions.") from error


def link_tree(source: Path, target: Path, *, suffixes: tuple[str, ...] | None = None) -> None:
    """The same files under another folder: hard links where the file system has them, copies elsewhere. With
    `suffixes`: those that lie in `source` itself and end so.

    They are gathered beside it and moved there together, durably, so that a kill never leaves half of them.
    """
    import shutil

    def place(src: str, dst: str) -> None:
        try:
            os.link(src, dst)
        except OSError:
            shutil.copy2(src, dst)
            with open(dst, "rb") as copy:  # noqa: PTH123
                os.fsync(copy.fileno())

    def others(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if not name.endswith(suffixes or "") or not (Path(folder) / name).is_file()]

    gathered = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copytree(source, gathered, copy_function=place, ignore=others if suffixes else None)
        for folder, _, _ in os.walk(gathered):
            fsync_folder(Path(folder))
        if target.exists():
            shutil.rmtree(target)
        gathered.rename(target)
        fsync_folder(target.parent)
    finally:
        shutil.rmtree(gathered, ignore_errors=True)
