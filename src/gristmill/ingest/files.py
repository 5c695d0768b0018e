"""Which files a recipe names: listed in a fixed order, hashed, and every one left out has its reason.

Rules: order is by path below the given folder. Names that begin with a dot (files and folders) are not looked at,
unless given by name. A link is followed only while it stays inside the given folder; links to folders are never
walked (they would list files twice, or for ever). Pipes, sockets and devices are never opened. A file whose name is
not UTF-8 is left out: no record could name it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import translate
from functools import cache
from pathlib import Path

from gristmill.core.errors import InputError
from gristmill.core.files import sha256_file
from gristmill.core.records import File, Record
from gristmill.core.stage import Dropped, PassContext
from gristmill.ingest.stages import FilesConfig


@dataclass(frozen=True)
class Found:
    """A file as the walk met it: its path below the given folder, where it lies, and why it can't be read, if so."""

    path: str
    location: Path
    problem: str = ""


@cache
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(translate(glob.removeprefix("**/")))


def _chosen(path: str, config: FilesConfig) -> bool:
    """A glob is matched against the path below the given folder, and against the file's name."""

    def matches(globs: Iterable[str]) -> bool:
        below = path.partition("/")[2] or path
        return any(_pattern(g).match(text) for g in globs for text in (path, below, path.rpartition("/")[2]))

    return matches(config.include) and not matches(config.exclude)


def _readable(path: str | Path) -> str:
    """A path as it can be written down: bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _problem(location: Path, root: Path, max_bytes: float) -> str:
    """Why this file must not be opened; empty when it may."""
    if _readable(location) != str(location):
        return "name is not UTF-8"
    try:
        if location.is_symlink() and not location.resolve(strict=True).is_relative_to(root.resolve()):
            return "link out of the folder"
        status = location.stat()
    except (OSError, RuntimeError):
        return "broken link" if location.is_symlink() else "cannot be opened"
    if stat.S_ISDIR(status.st_mode):
        return "link to a folder"
    if not stat.S_ISREG(status.st_mode):
        return "not a plain file"
    if not os.access(location, os.R_OK):
        return "no permission to read it"
    return "larger than max_mb" if status.st_size > max_bytes else ""


def _walk(root: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(root):
        here = Path(folder)
        links = [n for n in names if (here / n).is_symlink()]
        names[:] = [n for n in names if not n.startswith(".") and n not in links]
        yield from (here / n for n in [*files, *links] if not n.startswith("."))


def found(config: FilesConfig, base: Path) -> list[Found]:
    """Every file that the recipe's paths, globs and limit choose, in order; problems included, hidden names not."""
    listed: dict[Path, Found] = {}
    for given in config.paths:
        root = Path(os.path.abspath(base / given))  # noqa: PTH100  not resolved: a given path that is itself a link is meant
        if not root.exists():
            raise InputError(f"{given} does not exist", "Give a file or a folder; paths are relative to the recipe.")
        whole = root if root.is_dir() else root.parent
        for location in _walk(root) if root.is_dir() else [root]:
            path = location.relative_to(whole.parent if root.is_dir() else whole).as_posix()
            if _chosen(path, config):
                problem = _problem(location, root.resolve() if root.is_file() else whole, config.max_mb * 1e6)
                listed.setdefault(location, Found(_readable(path), location, problem))
    if not listed:
        raise InputError(
            f"no file to read in {', '.join(config.paths)}", "Check the folder, and the globs of include and exclude."
        )
    return sorted(listed.values(), key=lambda f: (f.path, str(f.location)))[: config.most_files]


def inputs(config: FilesConfig, base: Path) -> list[Path]:
    """The files whose content a run depends on."""
    return [f.location for f in found(config, base) if not f.problem]


def run(config: FilesConfig, _records: Iterable[Record], ctx: PassContext) -> Iterator[File | Dropped]:
    for item in found(config, ctx.base):
        marks = {"location": _readable(item.location)}
        if item.problem:
            yield Dropped(File(path=item.path, sha256="", size=0, marks=marks), item.problem)
        else:
            size = item.location.stat().st_size
            yield File(path=item.path, sha256=sha256_file(item.location), size=size, marks=marks)
