"""Whose tokens a chunk is measured in: a model of the catalogue, or one on disk, on whose files chunks then depend."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from gristmill.ingest.stages import ChunkConfig


def inputs(config: ChunkConfig, base: Path) -> list[Path]:
    """The files that decide how text is cut into tokens; none for a catalogue name, which stands for one fixed file."""
    from gristmill.models.catalogue import CATALOGUE

    if config.tokenizer in CATALOGUE:
        return []
    path = base / Path(config.tokenizer).expanduser()
    return [path] if path.is_file() else sorted(path.glob("*token*.json"))


def counter(config: ChunkConfig, base: Path) -> Callable[[str], int]:
    """Counts the tokens of a text. Files that have changed since the last call are read again."""
    state = tuple((path, path.stat().st_mtime_ns) for path in inputs(config, base))
    return _load(config.tokenizer, base, state)


@lru_cache(maxsize=4)
def _load(name: str, base: Path, _state: tuple[tuple[Path, int], ...]) -> Callable[[str], int]:
    from gristmill.models.renderer import Renderer
    from gristmill.models.weights import locate

    return Renderer.load(locate(name, base=base)).count
