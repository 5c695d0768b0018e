"""What a person waits for: `--help`, `check`, and a finished run given again. Medians of five."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from bench.command import gristmill

RECIPE = """\
name: start
stages:
  read: {kind: ingest.read, paths: [DOCUMENTS]}
  chunks: {kind: ingest.chunk, tokens: 250}
  cloze: {kind: generate.cloze}
  clean: {kind: curate.dedup}
"""


def main() -> None:
    documents = Path(__file__).parents[1] / "examples/documents"
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder, "recipe.yaml")
        recipe.write_text(RECIPE.replace("DOCUMENTS", str(documents)))
        first = gristmill("run", str(recipe), workspace=folder)
        print(f"first run of 6 documents      wall {first.wall:.2f} s, CPU {first.cpu:.2f} s")
        for name, arguments in {
            "--help": ["--help"],
            "check": ["check", str(recipe)],
            "the finished run again": ["run", str(recipe)],
        }.items():
            found = [gristmill(*arguments, workspace=folder) for _ in range(5)]
            wall, cpu = (statistics.median(getattr(m, what) for m in found) for what in ("wall", "cpu"))
            print(f"{name:<29} wall {wall:.2f} s, CPU {cpu:.2f} s")
