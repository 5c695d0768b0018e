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
MANY_LIVES = Path(__file__).with_name("many_lives.py")


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


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "seed"),
    [
        ({"lora": None, "keep": 1, "keep_best": 2, "patience": 9}, 1),
        ({"kind": "train.sft", "lora": {"r": 4, "dropout": 0.1}, "keep": 2}, 2),
    ],
    ids=["full", "lora"],
)
def test_killed_anywhere_it_loses_at_most_what_lies_between_two_checkpoints(
    settings: dict[str, Any], seed: int, tmp_path: Path, model_folder: Path
) -> None:
    """Killed at random places: while data is written, while saving, pruning, restoring, and while the final and the
    best models are written."""
    every = 3
    settings = {"steps": 11, "save_every": every, "eval_every": 2, "learning_rate": 1e-3, "threads": 1, **settings}
    command = [sys.executable, str(MANY_LIVES), str(tmp_path), str(model_folder), json.dumps(settings), "3", str(seed)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    trainings = json.loads(done.stdout)
    assert sum(life["died"] for lives in trainings for life in lives) > 5
    for number, lives in enumerate(trainings):
        reached = 0
        for life in lives:
            if life["steps"]:
                assert life["steps"][0] == life["resumed"] + 1
                assert reached - life["resumed"] <= every
                reached = max(reached, life["steps"][-1])
        assert lives[-1]["warnings"] == []
        whole, broken = tmp_path / "whole", tmp_path / f"broken-{number}"
        for part in ("final", "adapter", "best"):
            assert _contents(broken / part) == _contents(whole / part)
        left = {p.name for p in broken.rglob("*")}
        assert "checkpoints" not in left and "set-aside" not in left
        assert not any(name.endswith(".tmp") for name in left), left
