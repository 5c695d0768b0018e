"""A checkpoint is whole or not there; damage is named; the last whole one is never lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gristmill.core.errors import CheckpointError
from gristmill.models import checkpoint
from gristmill.models.state import load_optimizer, load_tensors, save_optimizer, save_tensors


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def write(root: Path, step: int) -> Path:
    folder = root / f"step-{step}"
    with checkpoint.staged(folder, metadata={"step": step}) as temp:
        save_tensors(temp / "model.safetensors", {"w": torch.full((64,), float(step))})
        (temp / "trainer.json").write_text("{}")
    return folder


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize(
    ("damage", "says"),
    [(flip_bit, "not what was written"), (truncate, "bytes instead of"), (Path.unlink, "is missing")],
)
def test_damage_is_named_and_the_one_before_is_taken(tmp_path: Path, damage: object, says: str) -> None:
    good, bad = write(tmp_path, 9), write(tmp_path, 10)
    damage(bad / "model.safetensors")  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=f"model.safetensors.*{says}"):
        checkpoint.verify(bad)
    newest = checkpoint.newest_valid(tmp_path)
    assert newest.folder == good and newest.manifest is not None and newest.manifest.step == 9
    assert [s.folder for s in newest.skipped] == [bad] and says in newest.skipped[0].why


def test_a_folder_without_manifest_does_not_exist(tmp_path: Path) -> None:
    (write(tmp_path, 1) / "manifest.json").unlink()
    newest = checkpoint.newest_valid(tmp_path)
    assert newest.folder is None and "manifest.json is missing" in newest.skipped[0].why
    assert checkpoint.newest_valid(tmp_path / "nowhere").folder is None


def test_a_file_that_no_one_wrote_is_damage(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    (folder / "more.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"more\.safetensors"):
        checkpoint.verify(folder)


def test_the_last_whole_one_is_never_pruned(tmp_path: Path) -> None:
    folders = [write(tmp_path, step) for step in range(1, 6)]
    for folder in folders[3:]:
        flip_bit(folder / "model.safetensors")
    gone = checkpoint.keep_last(tmp_path, 2, spare=[folders[0]])
    assert gone == [folders[1]]
    assert checkpoint.newest_valid(tmp_path).folder == folders[2] and folders[0].is_dir()


def test_an_error_while_writing_leaves_nothing_and_keeps_what_was(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    with pytest.raises(ZeroDivisionError), checkpoint.staged(folder, metadata={}) as temp:
        (temp / "trainer.json").write_text("half")
        raise ZeroDivisionError
    assert checkpoint.verify(folder).step == 1 and [p.name for p in tmp_path.iterdir()] == ["step-1"]


def test_equal_content_gives_an_equal_manifest_and_pickles_are_refused(tmp_path: Path) -> None:
    assert checkpoint.verify(write(tmp_path / "a", 3)).sha256 == checkpoint.verify(write(tmp_path / "b", 3)).sha256
    with pytest.raises(CheckpointError, match="may not"), checkpoint.staged(tmp_path / "c", metadata={}) as temp:
        (temp / "optimizer.pt").write_bytes(b"")


def test_a_kill_while_writing_loses_only_that_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 1)
    code = (
        "import os, signal, sys; from pathlib import Path; from gristmill.models import checkpoint\n"
        "with checkpoint.staged(Path(sys.argv[1]) / 'step-2', metadata={'step': 2}) as temp:\n"
        "    (temp / 'a.json').write_text('{}'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    newest = checkpoint.newest_valid(tmp_path)
    assert newest.folder == tmp_path / "step-1" and newest.skipped == ()
    write(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-1", "step-2"]


def test_weights_and_optimizer_come_back_bit_for_bit(tmp_path: Path) -> None:
    def training() -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 3)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1)

    def step(model: torch.nn.Linear, optimizer: torch.optim.AdamW) -> list[float]:
        optimizer.zero_grad()
        model(torch.arange(8.0).reshape(2, 4)).square().sum().backward()
        optimizer.step()
        return list(model.weight.flatten().tolist())

    model, optimizer = training()
    step(model, optimizer)
    save_optimizer(tmp_path, optimizer)
    save_tensors(tmp_path / "w.safetensors", model.state_dict())
    expected = [step(model, optimizer), step(model, optimizer)]
    again, fresh = training()
    again.load_state_dict(load_tensors(tmp_path / "w.safetensors"))
    load_optimizer(tmp_path, fresh)
    assert [step(again, fresh), step(again, fresh)] == expected
