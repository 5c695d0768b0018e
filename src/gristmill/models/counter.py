"""Whose tokens a text is measured in: a model of the catalogue, or a model or tokenizer on disk, on whose files the
measure then depends."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path


def tokenizer_files(name: str, base: Path) -> list[Path]:
    """The files that decide how text is cut into tokens; none for a catalogue name, which stands for one fixed file."""
    from gristmill.models import hub
    from gristmill.models.catalogue import CATALOGUE

    if name in CATALOGUE:
        return []
    path = hub.require(name).folder if name.startswith(hub.PREFIX) else base / Path(name).expanduser()
    return [path] if path.is_file() else sorted(path.glob("*token*.json"))


def token_counter(name: str, base: Path) -> Callable[[str], int]:
    """Counts the tokens of a text. Files that have changed since the last call are read again."""
    return _load(name, base, tuple(map(_state, tokenizer_files(name, base))))


def _state(path: Path) -> tuple[str, int, int, int, int]:
    """What changes with a file, even where a copy keeps the time of its last change."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


@lru_cache(maxsize=4)
def _load(name: str, base: Path, _states: tuple[tuple[str, int, int, int, int], ...]) -> Callable[[str], int]:
    from gristmill.models.renderer import Renderer
    from gristmill.models.weights import locate_tokenizer

    return Renderer.load(locate_tokenizer(name, base=base)).count
