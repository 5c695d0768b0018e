"""What is damaged on disk is found, said and passed over; a full disk costs the checkpoint at hand and no other."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gristmill.core.errors import Cancelled, CheckpointError
from gristmill.models import state
from gristmill.train.run import run

Make = Callable[..., Any]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def resumed(ctx: Any) -> list[int]:
    return [m["resumed_step"] for m in ctx.metrics if "resumed_step" in m]


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def stopped(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path, pass_of: Any, config: Make, samples: Make
) -> Any:
    """A training that was stopped after step 5, with checkpoints at 2, 4 and 5, in shards; and what it comes to."""
    whole, folder = (tmp_path_factory.mktemp(name) for name in ("whole", "stopped"))
    settings, given = config(steps=6, save_every=2, keep=3, lora=None), samples(12)
    list(run(settings, given, pass_of(whole, model_folder, whole / "cache")))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Cancelled):
        patch.setattr(state.save_tensors, "__kwdefaults__", {"shard": 60_000})
        list(run(settings, given, pass_of(folder, model_folder, folder / "cache", stop_after=5)))
    return settings, given, folder, contents(whole / "final")


DAMAGE = {
    "a flipped bit in the weights": ("trained-00002-of-*", flipped, "is not what was written"),
    "a truncated file": ("optimizer-00001-of-*", truncated, "bytes instead of"),
    "a missing shard": ("trained-00003-of-*", Path.unlink, "is missing"),
    "a missing index": ("trained.safetensors.index.json", Path.unlink, "is missing"),
    "a flipped bit in the manifest": ("manifest.json", flipped, "manifest.json"),
    "no manifest": ("manifest.json", Path.unlink, "manifest.json is missing"),
    "an empty optimizer": ("optimizer.json", lambda path: path.write_bytes(b""), "bytes instead of"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_said_and_the_checkpoint_before_it_taken(case: str, stopped: Any, context: Make) -> None:
    settings, given, folder, final = stopped
    name, damage, says = DAMAGE[case]
    ctx = context()
    shutil.copytree(folder / "checkpoints", ctx.folder / "checkpoints")
    (path,) = (ctx.folder / "checkpoints" / "step-000005").glob(name)
    damage(path)
    left = contents(path.parent)
    list(run(settings, given, ctx))
    (warning,) = ctx.warnings
    assert "step-000005" in warning and says in warning and "set-aside" in warning
    assert resumed(ctx) == [4] and len(ctx.losses) == 2
    assert contents(ctx.folder / "set-aside" / "step-000005") == left
    assert contents(ctx.folder / "final") == final


def test_when_all_are_damaged_training_begins_again_and_says_so(stopped: Any, context: Make) -> None:
    settings, given, folder, _ = stopped
    ctx = context()
    shutil.copytree(folder / "checkpoints", ctx.folder / "checkpoints")
    for path in ctx.folder.glob("checkpoints/*/optimizer.json"):
        truncated(path)
    list(run(settings, given, ctx))
    assert len(ctx.warnings) == 4 and len(ctx.losses) == 6
    assert "from the beginning" in ctx.warnings[-1]


def test_without_its_best_weights_a_training_goes_back_to_before_them(
    context: Make, config: Make, samples: Make
) -> None:
    """Patience goes back to the best weights: a checkpoint after them is worth nothing when they are damaged."""
    held = [s.marked(split="validation") for s in samples(6, texts=0, seed=9)]
    given = [*samples(6, texts=0), *held]
    changes = {"eval_every": 2, "patience": 3, "learning_rate": 3e-2, "schedule": "constant", "lora": None}
    settings = config(steps=100, save_every=3, keep=2, **changes)
    whole = context("whole")
    list(run(settings, given, whole))
    evals = {m["step"]: m["eval_loss"] for m in whole.metrics if "eval_loss" in m}
    best = min(evals, key=lambda step: evals[step])
    broken = context("broken", stop_after=best + 3)
    with pytest.raises(Cancelled):
        list(run(settings, given, broken))
    flipped(broken.folder / "checkpoints" / f"step-{best:06d}" / "trained.safetensors")
    again = context("broken")
    list(run(settings, given, again))
    assert resumed(again) == [] and len(again.losses) == len(whole.losses)
    assert contents(again.folder / "final") == contents(whole.folder / "final")


def test_a_limit_reached_while_saving_keeps_the_checkpoints_before(context: Make, config: Make, samples: Make) -> None:
    """A file that may not grow any more ends a write as a full disk does."""
    settings, given = config(steps=6, save_every=2, keep=2), samples(12)
    ctx, whole = context("limited"), context("whole")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(values: dict[str, Any]) -> None:
        if values.get("step") == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))

    ctx.on_metric = limit
    try:
        with pytest.raises(CheckpointError, match=f"step-000004 could not be written: {os.strerror(errno.EFBIG)}"):
            list(run(settings, given, ctx))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in (ctx.folder / "checkpoints").iterdir()] == ["step-000002"]
    again = context("limited")
    list(run(settings, given, again))
    list(run(settings, given, whole))
    assert resumed(again) == [2] and not again.warnings
    assert contents(again.folder / "final") == contents(whole.folder / "final")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)  # examples on it may still be mapped


@pytest.mark.parametrize("fills", [2, 7], ids=["a checkpoint", "the final model"])
def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    fills: int, small_disk: Path, context: Make, config: Make, samples: Make
) -> None:
    """A checkpoint takes 1.1 MB, the final model 0.4; something else fills all but 0.3 of 4 MB at a step."""
    settings, given = config(steps=7, save_every=2, keep=1, lora=None), samples(12)
    full, whole = context("full"), context("whole")
    full.folder, ballast = small_disk, small_disk / "ballast"

    def fill(values: dict[str, Any]) -> None:
        if values.get("step") == fills and "loss" in values:
            ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - 300_000))

    full.on_metric = fill
    with pytest.raises(CheckpointError, match=r"(no room for|could not be written).* MB are free in") as raised:
        list(run(settings, given, full))
    assert "Free disk space" in raised.value.hint
    ballast.unlink()
    names = {p.name for p in small_disk.iterdir()}
    assert not any(name.endswith(".tmp") for name in names) and "final" not in names
    full.on_metric = None
    full.losses.clear()
    list(run(settings, given, full))
    list(run(settings, given, whole))
    assert resumed(full) == ([] if fills == 2 else [6])
    assert contents(small_disk / "final") == contents(whole.folder / "final")
