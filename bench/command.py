"""Runs the command line and measures it: wall and CPU seconds of the process and its children."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """What a command printed, and what it took, in seconds."""

    out: str
    wall: float
    cpu: float


def gristmill(*arguments: str, workspace: str) -> Measured:
    """`gristmill ARGUMENTS` in a workspace; a failure shows what the command said."""
    before, started = os.times(), time.monotonic()
    environment = {**os.environ, "GRISTMILL_WORKSPACE": workspace}
    command = [sys.executable, "-m", "gristmill", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Measured(done.stdout, time.monotonic() - started, cpu)
