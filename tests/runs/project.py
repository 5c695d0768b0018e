"""A small project on disk: documents about invented places, a recipe that asks the fake server, the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

PLACES = ["Orvale", "Tessmoor", "Kilbrack", "Undrey", "Vashtin", "Pellow", "Garrick", "Ninefold", "Ombery", "Sallow"]


def document(place: str, number: int) -> str:
    """About 60 words, three sentences a paragraph, every one naming its subject."""
    return (
        f"# {place}\n\n{place} is a harbour town with {number} bridges and one market square. "
        f"The lighthouse of {place} was built by Harm Dekker in 18{number:02d}. "
        f"The ferry of {place} carries {number * 7} passengers and two carts.\n\n"
        f"The bakers of {place} sell rye bread on {number} mornings. The well of {place} is {number + 30} metres deep."
    )


@dataclass
class Project:
    """Documents, a recipe and a workspace below one folder."""

    folder: Path

    def add(self, *places: str) -> None:
        for place in places:
            self.write(f"documents/{place.lower()}.md", document(place, 10 + PLACES.index(place)))

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    def recipe(self, url: str, **changes: Any) -> Path:
        """Read, chunk, ask for questions and facts, drop duplicates. `changes` lie over the recipe's stages."""
        stages: dict[str, Any] = {
            "read": {"kind": "ingest.read", "paths": ["documents"]},
            "chunks": {"kind": "ingest.chunk", "tokens": 60},
            "facts": {"kind": "generate.facts", "model": "writer", "per_chunk": 3, "max_failures": 1.0},
            "cloze": {"kind": "generate.cloze", "needs": ["facts"]},
            "clean": {"kind": "curate.dedup", "near": False},
        }
        for name, change in changes.pop("stages", {}).items():
            stages[name] = {**stages.get(name, {}), **change} if change is not None else None
        writer = {"provider": "openai", "base_url": url, "model": "fake-model", "concurrency": 4, "attempts": 3}
        recipe = {"name": "little", "seed": 3, "models": {"writer": writer}, "stages": stages, **changes}
        return self.write("recipe.yaml", yaml.safe_dump(recipe, sort_keys=False))

    @property
    def workspace(self) -> Path:
        return self.folder / "ws"

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "gristmill", *map(str, arguments)]

    def run(self, *arguments: str | Path, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
        """The command line, as a person would call it; its exit code must be `code`."""
        environment = {**os.environ, "GRISTMILL_WORKSPACE": str(self.workspace), **environment}
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, env=environment, timeout=240)
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def go(self, *arguments: str | Path, code: int = 0) -> dict[str, Any]:
        """`gristmill run recipe.yaml --json`."""
        done = self.run("run", self.folder / "recipe.yaml", "--json", *arguments, code=code)
        return json.loads(done.stdout)

    def records(self, outcome: dict[str, Any], stage: str) -> list[dict[str, Any]]:
        return self._rows(outcome, stage, "records")

    def rejects(self, outcome: dict[str, Any], stage: str) -> list[dict[str, Any]]:
        return self._rows(outcome, stage, "rejects")

    def _rows(self, outcome: dict[str, Any], stage: str, table: str) -> list[dict[str, Any]]:
        [folder] = Path(outcome["folder"]).glob(f"stages/*-{stage}")
        return pq.read_table(folder / f"{table}.parquet").to_pylist()


def stage_bytes(folder: Path) -> dict[str, bytes]:
    """What an interrupted run must give to the byte: every stage's records and rejects, and all weights."""
    files = [*folder.glob("stages/*/*.parquet"), *folder.glob("checkpoints/**/*.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
