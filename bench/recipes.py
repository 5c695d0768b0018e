"""Every recipe that writes or cleans data, run on a small input with one local model: what came out, and what was
dropped for what reason.

MODEL is a catalogue name or a GGUF file (the embedded model if not given), ONLY some recipes, WORKSPACE where answers
are kept (a passing folder if not given), PAGES a folder for a page of unedited samples of each recipe. A recipe may end
without a sample only if that hangs on what the model writes or judges, and says so by its exit code; with NOT_EMPTY=1
none may.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.sample_pages import write_page
from bench.vectors import vector_server
from gristmill.runs.folder import RunFolder
from gristmill.runs.source import read_source

RECIPES = Path(__file__).parents[1] / "recipes"
EMBEDDED = "smollm2-135m-instruct"
MODEL = os.environ.get("MODEL", EMBEDDED)
EMPTY = 3  # exit code: an input, or what was left of it, is not enough
SMALL: dict[str, dict[str, Any]] = {
    "ingest.subset": {"chunks": 2},
    "ingest.rows": {"limit": 4},
    "evaluate.exam": {"limit": 4},
    "generate.self_instruct": {"rows": 8},
    "generate.magpie": {"rows": 4},
    "generate.table": {"rows": 4},
    "generate.recall": {"anchors": 2},
    "generate.augment": {"variants": 1, "share": 0.3},
    "generate.tool_calls": {"per_tool": 1},
    "curate.earlier": {"runs": []},  # of two recipes on the same pieces the second would hold nothing new
}
LONG = {"roleplay": {"ingest.subset": {"chunks": 6}}}
"""Where one step hands on to the next so often that little of a small input is left."""
SHORT = 1_500  # tokens of a training
LONGEST = 1_800  # seconds of a recipe


def pipelines() -> Iterator[Path]:
    """Those that write, and those that only sift; sweeps excepted: they are many runs."""
    only = os.environ.get("ONLY", "").split()
    for path in sorted(RECIPES.glob("*.yaml")):
        data = read_source(path, None).data
        rooms = {str(stage.get("kind", "")).partition(".")[0] for stage in data["stages"].values()}
        writes = "generate" in rooms or ("curate" in rooms and "train" not in rooms)
        if writes and "sweep" not in data and (not only or path.stem in only):
            yield path


def remote(data: dict[str, Any]) -> dict[str, bool]:
    """Roles that a user's own models have, and whether they give vectors alone."""
    embedders = {stage["model"] for stage in data["stages"].values() if stage["kind"] == "curate.embed"}
    roles = {role for role, spec in (data.get("models") or {}).items() if spec.get("provider") != "local"}
    return {role: role in embedders for role in sorted(roles) if "from" not in data["models"][role]}


def right(path: Path, code: int) -> bool:
    """Whether a recipe may end so: with nothing only where a model is asked for words, which a small one may fail."""
    words = not all(remote(read_source(path, None).data).values())
    return code == 0 or (code == EMPTY and words and not os.environ.get("NOT_EMPTY"))


def small(path: Path, vectors: str) -> Iterator[str]:
    """`--set` arguments: every remote model is the local one, and the input and the training are short. `vectors` is
    where embeddings are asked for: local models give none."""
    data = read_source(path, None).data
    local = {"provider": "local", "model": MODEL, "context": 4096, "concurrency": 2}
    embedder = {"provider": "openai", "base_url": vectors, "model": "local"}
    for role, embeds in remote(data).items():
        spec = {**local, "model": EMBEDDED} if role == "other" else local  # a second writer is to differ from the first
        yield f"models.{role}={json.dumps(embedder if embeds else spec)}"
    kinds = {str(stage["kind"]) for stage in data["stages"].values()}
    for name, stage in data["stages"].items():
        kind = str(stage["kind"])
        values: dict[str, Any] = dict((SMALL | LONG.get(path.stem, {})).get(kind, {}))
        if kind == "ingest.rows" and "generate.label" in kinds:
            values = {}  # its rounds draw the few that they label
        if kind.startswith("train.") and kind not in ("train.tokenizer", "train.classify"):
            values = {"tokens": SHORT, "epochs": None, "steps": None}
            values = {key: value for key, value in values.items() if key == "tokens" or key in stage}
        for key, value in values.items():
            yield f"stages.{name}.{key}={json.dumps(value)}"


def run(path: Path, workspace: str) -> tuple[int, str]:
    environment = {**os.environ, "GRISTMILL_WORKSPACE": workspace}
    with vector_server() as vectors:
        arguments = [argument for value in small(path, vectors) for argument in ("--set", value)]
        command = [sys.executable, "-m", "gristmill", "run", str(path), "--json", *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False, timeout=LONGEST
            )
        except subprocess.TimeoutExpired:
            return 124, f"took longer than {LONGEST} s"
    return done.returncode, done.stdout or done.stderr


def told(folder: RunFolder) -> Iterator[str]:
    """The funnel: of each stage what came out, and what was dropped by reason."""
    for name, output in folder.outputs().items():
        reasons = Counter(str(reject["reason"]) for reject in output.rejects())
        dropped = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        yield f"    {name}: {output.count} out" + (f"; dropped: {dropped}" if dropped else "")


def main() -> None:
    failed = []
    with tempfile.TemporaryDirectory() as passing:
        workspace = os.environ.get("WORKSPACE", passing)
        for path in pipelines():
            started = time.monotonic()
            code, said = run(path, workspace)
            outcome = json.loads(said) if said.startswith("{") else {}
            fine = right(path, code)
            print(
                f"{'ok  ' if fine else 'FAIL'} {path.stem}: exit {code}, {time.monotonic() - started:.0f} s",
                flush=True,
            )
            if "folder" in outcome:
                folder = RunFolder(Path(outcome["folder"]))
                print("\n".join(told(folder)), flush=True)
                if os.environ.get("PAGES"):
                    writer = Path(MODEL).stem if remote(read_source(path, None).data) else "code"
                    write_page(folder, path.stem, Path(os.environ["PAGES"]), writer=writer)
            if code:
                words = f"{outcome['error']} {outcome['hint']}" if outcome.get("error") else said.strip()[-600:]
                print("    " + words.replace("\n", "\n    "), flush=True)
            failed += [] if fine else [path.stem]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
