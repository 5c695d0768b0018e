"""Whose tokens a chunk is measured in, and the files that its chunks then depend on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gristmill.ingest.stages import ChunkConfig


def inputs(config: ChunkConfig, base: Path) -> list[Path]:
    from gristmill.models.weights import tokenizer_files

    return tokenizer_files(config.tokenizer, base=base)


def counter(config: ChunkConfig, base: Path) -> Callable[[str], int]:
    from gristmill.models.counter import token_counter

    return token_counter(config.tokenizer, base)
