"""A million rows: memory over time, kill -9 near the end, how soon the next start asks again, and the finished run.

`make bench-million` (ROWS=…, LATENCY_MS=… for less). Against the shared bench's fake server, which counts every answer
of every row; needs about 12 GB of disk below $PEERBENCH_HOME while it runs.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.engine import Gate, at_most, exactly
from bench.machine import machine
from bench.peers import BENCH, HOME, install
from bench.server import Server, fake_server
from bench.table import keep, table

ROWS = int(os.environ.get("ROWS", "1000000"))
LATENCY_MS = float(os.environ.get("LATENCY_MS", "2"))
CONCURRENCY = 64
KILL_AT = 0.98
SAMPLED_EVERY = 1.0  # seconds


@dataclass
class Life:
    """One start of `gristmill run` to its end."""

    seconds: float = 0.0
    cpu: float = 0.0
    peak_mb: int = 0
    memory: list[tuple[int, int, int]] = field(default_factory=list)  # seconds, answers so far, MB
    code: int | None = None
    first_call: float | None = None  # seconds from the start to the first request


def live(folder: Path, server: Server, *, until: Callable[[int], bool] = lambda _: False) -> Life:
    """Run the recipe in `folder`, watched from outside; kill -9 once `until` says so of the answers given."""
    server.mark()
    life, begun, clock = Life(), time.monotonic(), time.time()
    command = [sys.executable, "-m", "gristmill", "run", "recipe.yaml", "--workspace", "workspace", "--quiet"]
    environment = {**os.environ, "BENCH_KEY": "sk-fake"}
    with (folder / "out.txt").open("ab") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
    while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        answered = server.stats()["ok"]
        resident = _megabytes(process.pid, "VmRSS")
        life.peak_mb = max(life.peak_mb, _megabytes(process.pid, "VmHWM"))
        life.memory.append((round(time.monotonic() - begun), answered, resident))
        if until(answered):
            process.send_signal(signal.SIGKILL)
            ended = os.wait4(process.pid, 0)
            break
        time.sleep(SAMPLED_EVERY)
    process.returncode = life.code = os.waitstatus_to_exitcode(ended[1])
    life.seconds, life.cpu = time.monotonic() - begun, ended[2].ru_utime + ended[2].ru_stime
    first = server.stats()["t_first"]
    life.first_call = first - clock if first else None
    return life


def _megabytes(pid: int, name: str) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith(name)), 0)


def main() -> None:
    install()
    folder = HOME / "runs" / "million"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with fake_server(LATENCY_MS) as server:
            adapter().prepare(folder, f"{server.url}/v1", rows=ROWS, concurrency=CONCURRENCY, timeout=60)
            first = live(folder, server, until=lambda answered: answered >= KILL_AT * ROWS)
            before = server.stats()
            second = live(folder, server)
            after = server.stats()
            third = live(folder, server)
            last = server.stats()
        judge([first, second, third], [before, after, last], rows_given(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rows_given(folder: Path) -> int:
    """Rows in the run's output that hold their own answer."""
    return sum(row in answer for row, answer in adapter().collect(str(folder)))


def adapter() -> Any:
    """The same recipe and the same reading of what came of it as in the shared bench, whose rows it needs."""
    sys.path.append(str(BENCH / "adapters"))
    return importlib.import_module("bench.engine_adapter")


def judge(lives: list[Life], stats: list[dict[str, Any]], given: int) -> None:
    before, after, last = stats
    peak = max(life.peak_mb for life in lives)
    gates = [
        at_most(f"memory at {ROWS:,} rows", peak, 300, " MB"),
        at_most("start after kill -9 to its first call (resume scan, imports included)", lives[1].first_call, 10, " s"),
        at_most("paid calls repeated after the kill, of 64 in flight", after["repeated_ok"], CONCURRENCY),
        exactly("rows answered, in the output and right", [after["rows_ok"], given], [ROWS, ROWS]),
        exactly("finished run again: calls", last["attempts"] - after["attempts"], 0),
        exactly("exit codes (killed, finished, shown)", [life.code for life in lives], [-9, 0, 0]),
    ]
    for gate in gates:
        print(f"{'PASS' if gate.passed else 'FAIL'}  {gate.what}: {gate.figure} (bound {gate.bound})")
    keep("million", page(gates, lives, before))
    if not all(gate.passed for gate in gates):
        sys.exit(1)


def page(gates: list[Gate], lives: list[Life], before: dict[str, Any]) -> str:
    names = (f"from nothing, kill -9 after {before['ok']:,} answers", "started again, to its end", "given once more")
    rows = [
        [name, f"{life.seconds:.0f}", f"{life.cpu:.0f}", life.peak_mb, _shown(life.first_call), _course(life)]
        for name, life in zip(names, lives, strict=True)
    ]
    return "\n\n".join(
        [
            f"`make bench-million`, once: {ROWS:,} rows at {CONCURRENCY}:{LATENCY_MS:g}. {machine()}.",
            table(
                ["gate", "bound", "measured", ""],
                [[g.what, g.bound, g.figure, "pass" if g.passed else "**fail**"] for g in gates],
            ),
            table(["run", "wall s", "CPU s", "peak MB", "first call after s", "MB over its time"], rows),
        ]
    )


def _course(life: Life) -> str:
    """Memory at eight moments, evenly spaced."""
    step = max(1, len(life.memory) // 8)
    return " ".join(str(resident) for _, _, resident in life.memory[::step])


def _shown(seconds: float | None) -> str:
    return "no call" if seconds is None else f"{seconds:.1f}"
