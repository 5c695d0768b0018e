"""Gristmill for the shared engine bench (`--adapter gristmill=bench/engine_adapter.py`), run as a person would run it:
a table of prompts, a recipe, `gristmill run`. Store, retries, limits, budget, usage and lineage are all on.

`collect` reads what the run left in its folder. The bench runs this file with the interpreter that has Gristmill.
"""

from __future__ import annotations

import io
import json
import os
import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import orjson
import peerbench

RECIPE = """\
name: bench
budget: {{calls: {calls}, tokens: {tokens}}}
models:
  writer:
    provider: openai
    base_url: "{base}"
    api_key: env:BENCH_KEY
    model: fake-model
    concurrency: {conc}
    timeout: {timeout}
stages:
  rows: {{kind: ingest.rows, paths: [rows.jsonl]}}
  answers: {{kind: generate.ask, model: writer, prompt: "{{{{prompt}}}}", max_tokens: 400}}
"""
ENDED = {0, 4}
"""Exit codes of a run that went through its rows: all answered, or some could not be."""


def prepare(folder: Path, base: str, *, rows: int, concurrency: int, timeout: float) -> None:
    """The table and the recipe, as a person would have them."""
    table = folder / "rows.jsonl"
    if not table.exists():
        with table.open("wb") as file:
            for i in range(rows):
                file.write(orjson.dumps({"id": peerbench.row_id(i), "prompt": peerbench.prompt(i)}) + b"\n")
    limits = {"calls": 20 * rows, "tokens": 20_000 * rows}
    recipe = RECIPE.format(base=base, conc=concurrency, timeout=timeout, **limits)
    (folder / "recipe.yaml").write_text(recipe, "utf-8")


def run(a: Namespace) -> dict[str, Any]:
    work = Path(a.work)
    prepare(work, a.base, rows=a.n, concurrency=a.conc, timeout=a.timeout)
    code, said = _command_line("run", "recipe.yaml", "--workspace", "workspace", "--json", folder=work)
    if code not in ENDED:
        raise RuntimeError(f"exit {code}: {said[-1000:]}")
    outcome = json.loads(said)
    dead = _dead_letters(work) if code else 0  # the bench measures this process too: nothing is loaded for 0
    return {"state": outcome["state"], "exit": code, "spent": outcome["spent"], "dead": dead}


def _command_line(*arguments: str, folder: Path) -> tuple[int, str]:
    """`gristmill ARGUMENTS` in this process, as its console script does it: exit code, and what it printed."""
    from gristmill.cli.app import main

    os.chdir(folder)
    os.environ["BENCH_KEY"] = "sk-fake"
    sys.argv = ["gristmill", *arguments]
    code: int | str | None = 0
    with redirect_stdout(io.StringIO()) as out:
        try:
            main()
        except SystemExit as end:
            code = end.code
    return (code if isinstance(code, int) else 0), out.getvalue()


def _dead_letters(work: Path) -> int:
    """Rows that the run gave up, each of them recorded with why."""
    import pyarrow.parquet as pq

    [path] = work.glob("workspace/runs/*/stages/*-answers/rejects.parquet")
    rejects = pq.read_table(path, columns=["reason", "detail"]).to_pylist()
    return sum(bool(row["reason"] and row["detail"]) for row in rejects)


def collect(work: str) -> Iterator[tuple[str, str]]:
    """Row id and answer of every row that the run gave."""
    import pyarrow.parquet as pq

    for path in Path(work).glob("workspace/runs/*/stages/*-answers/records.parquet"):
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=10_000, columns=["body"]):
                for body in batch.column("body").to_pylist():
                    data = orjson.loads(body)["data"]
                    yield data["id"], data["answer"]
