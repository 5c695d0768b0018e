"""Killed with SIGKILL between two checkpoints, then run again: the same bytes as a training that was never
disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gristmill.train.run import run

ONE_RUN = Path(__file__).with_name("one_run.py")


def _process(folder: Path, model: Path, settings: dict[str, Any], *die_at: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(ONE_RUN), str(folder), str(model), json.dumps(settings), *die_at]
    environment = {**os.environ, "OMP_NUM_THREADS": str(settings["threads"]), "OMP_WAIT_POLICY": "passive"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"lora": {"r": 4, "dropout": 0.1}, "steps": 9, "save_every": 2, "threads": 1},
        {"lora": None, "steps": 9, "save_every": 2, "threads": 2},
    ],
    ids=["lora", "full-2-threads"],
)
def test_a_killed_training_ends_with_the_same_bytes(
    tmp_path: Path, model_folder: Path, settings: dict[str, Any], context: Any, config: Any, samples: Any
) -> None:
    killed = _process(tmp_path / "killed", model_folder, settings, "5")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = _process(tmp_path / "killed", model_folder, settings)
    assert last.returncode == 0, last.stderr
    told, whole = json.loads(last.stdout), context("whole")
    list(run(config(**settings), samples(20), whole))
    assert told["resumed"] == [4]  # saved at 4, killed at 5
    assert told["losses"] == whole.losses[4:]
    for part in ("final", "adapter") if settings["lora"] else ("final",):
        ours = {p.name: p.read_bytes() for p in (tmp_path / "killed" / part).iterdir()}
        assert ours == {p.name: p.read_bytes() for p in (whole.folder / part).iterdir()}
