"""What `gristmill run` takes before its first call to a model: imports, checks, the table read, the recipe planned."""

from __future__ import annotations

import importlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.peers import BENCH, HOME
from bench.server import Server, fake_server

ANSWER_MS = 5000  # so late that nothing but the start has happened when the first request is seen
TIMES = 5


def cpu_before_first_call() -> float:
    """CPU seconds of the process when its first request arrives; median of five runs on a table of 300 rows."""
    sys.path[:0] = [str(BENCH / "adapters"), str(Path(__file__).parent)]
    adapter = importlib.import_module("engine_adapter")
    with fake_server(ANSWER_MS) as server:
        return statistics.median(_once(adapter, server) for _ in range(TIMES))


def _once(adapter: Any, server: Server) -> float:
    folder = HOME / "runs" / "first-call"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    adapter.prepare(folder, f"{server.url}/v1", rows=300, concurrency=64, timeout=60)
    command = [sys.executable, "-m", "gristmill", "run", "recipe.yaml", "--workspace", "workspace", "--quiet"]
    server.mark()
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "BENCH_KEY": "sk-fake"})
    try:
        while not server.stats()["t_first"]:
            time.sleep(0.005)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    finally:
        process.kill()
        process.wait()
