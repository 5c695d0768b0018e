"""A run's folder: what an earlier process left in it stands in nobody's way."""

from __future__ import annotations

import os
from pathlib import Path

from gristmill.core.files import link_tree, write_text
from gristmill.runs.folder import RunFolder, reuse


def test_what_a_killed_process_was_linking_is_cleared_and_blocks_nobody(tmp_path: Path) -> None:
    source = tmp_path / "other/stages/02-chunks"
    write_text(source / "stage.json", "{}")
    folder = RunFolder(tmp_path / "run")
    output, weights = folder.stage(1, "chunks"), folder.path / "checkpoints/tune"
    for target in (output.folder, weights):  # in a container the next process has the same number
        write_text(target.with_name(f".{target.name}.{os.getpid()}.tmp") / "half", "x")
    folder.begin()
    reuse(source, output)
    link_tree(source, weights)
    left = sorted(str(p.relative_to(folder.path)) for p in folder.path.glob("*/*"))
    assert left == ["checkpoints/tune", "stages/02-chunks"]
