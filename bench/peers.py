"""The shared engine bench beside this project: where it is, how its engines are installed, and what its runs said.

It is found at $PEERBENCH, or at ../shared/bench beside the repository. Its engines live in $PEERBENCH_HOME, outside
the repository (the bench's own default: ~/.cache/peerbench).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BENCH = Path(os.environ.get("PEERBENCH") or ROOT.parent / "shared" / "bench")
HOME = Path(os.environ.get("PEERBENCH_HOME") or Path.home() / ".cache" / "peerbench")
ENGINES = {"base": "base", "curator": "curator_llm"}
"""What a comparison needs at least: environment -> the engine it brings. `base` brings the references and the SDK."""

_SHOWN = ("aiohttp", "bespokelabs-curator", "openai", "orjson", "uvloop")

Record = dict[str, Any]


def python(environment: str = "base") -> Path:
    return HOME / "venvs" / environment / "bin" / "python"


def install() -> None:
    """The engines that are missing, in the versions that the reference figures were measured with."""
    if not (BENCH / "bench_engine.py").exists():
        sys.exit(f"no engine bench at {BENCH}: name its folder in the variable PEERBENCH")
    missing = [name for name in ENGINES if not python(name).exists()]
    if missing:
        environment = {**os.environ, "PEERBENCH_HOME": str(HOME), "PY": sys.executable}
        subprocess.run([BENCH / "install_peers.sh", "--frozen", *missing], env=environment, check=True)


def drive(mode: str, *options: str, peers: str) -> list[Record]:
    """One run of the bench with Gristmill beside `peers`: every measurement, then one summary for each engine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.jsonl")
        command = [python(), BENCH / "bench_engine.py", mode, "--peers", peers, "--out", out, "--quiet", *options]
        adapter = ["--adapter", f"gristmill={ROOT / 'bench' / 'engine_adapter.py'}", "--adapter-python", sys.executable]
        print(f"-- {mode} {' '.join(options)}", flush=True)
        subprocess.run(
            [*map(str, command), *adapter], env={**os.environ, "PEERBENCH_HOME": str(HOME)}, check=False
        )  # 1: an engine gave up, which is a result
        return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def versions() -> dict[str, str]:
    """What was measured against what: this project's commit and libraries, and the other engines'."""
    rev = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    found = {"gristmill": rev.stdout.strip() or "no git", "python": sys.version.partition(" ")[0]}
    for name, site in {
        "gristmill": Path(sys.prefix),
        **{engine: python(environment).parents[1] for environment, engine in ENGINES.items()},
    }.items():
        for folder in sorted(site.glob("lib/python*/site-packages/*.dist-info")):
            package, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
            if (plain := re.sub(r"[-_.]+", "-", package).lower()) in _SHOWN:
                found[f"{name}: {plain}"] = version
    return found
