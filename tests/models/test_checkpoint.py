"""A checkpoint is whole or not there; damage is named; the last whole one is never lost."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
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


def test_a_changed_figure_in_the_manifest_is_damage(tmp_path: Path) -> None:
    path = write(tmp_path, 1) / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"step": 1', b'"step": 3'))
    newest = checkpoint.newest_valid(tmp_path)
    assert newest.folder is None and "manifest.json is not what was written" in newest.skipped[0].why


def test_what_was_just_written_is_never_pruned_nor_what_is_spared(tmp_path: Path) -> None:
    folders = [write(tmp_path, step) for step in range(1, 6)]
    assert checkpoint.keep_last(tmp_path, 2, written=folders[4], spare=[folders[0]]) == [folders[2], folders[1]]
    assert checkpoint.keep_last(tmp_path, 1, written=folders[3]) == [folders[4], folders[0]]
    assert checkpoint.newest_valid(tmp_path).folder == folders[3]


def test_one_that_needs_another_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    folders = [write(tmp_path, step) for step in (1, 2, 3)]

    def need(manifest: checkpoint.Manifest) -> None:
        if manifest.step > 1:
            checkpoint.verify(folders[1])

    flip_bit(folders[1] / "model.safetensors")
    newest = checkpoint.newest_valid(tmp_path, require=need)
    assert newest.folder == folders[0] and [s.folder for s in newest.skipped] == [folders[2], folders[1]]


def test_what_is_set_aside_keeps_its_files_and_is_not_found_again(tmp_path: Path) -> None:
    root, home = tmp_path / "checkpoints", tmp_path / "set-aside"
    first = checkpoint.set_aside(write(root, 1), home)
    second = checkpoint.set_aside(write(root, 1), home)
    assert [first.name, second.name] == ["step-1", "step-1-2"]
    assert checkpoint.verify(first).sha256 == checkpoint.verify(second).sha256
    assert checkpoint.newest_valid(root).folder is None


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte, with one checkpoint on it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def write_large(folder: Path, *, size: int = 0, shard: int = 10**9) -> None:
    with checkpoint.staged(folder, metadata={"step": 2}, size=size) as temp:
        save_tensors(temp / "model.safetensors", {str(n): torch.ones(50_000) for n in range(8)}, shard=shard)


@pytest.mark.parametrize("shard", [10**9, 450_000], ids=["one file", "a later shard"])
def test_a_disk_that_fills_while_writing_costs_that_checkpoint_alone(small_disk: Path, shard: int) -> None:
    write(small_disk, 1)
    with pytest.raises(CheckpointError, match=r"step-2 could not be written: No space left .*MB are free") as raised:
        write_large(small_disk / "step-2", shard=shard)
    assert "same command" in raised.value.hint
    assert [p.name for p in small_disk.iterdir()] == ["step-1"] and checkpoint.verify(small_disk / "step-1").step == 1
    assert write(small_disk, 3).is_dir()  # the room of the staged rest was given back


def test_a_disk_that_is_full_is_seen_before_writing(small_disk: Path) -> None:
    write(small_disk, 1)
    with pytest.raises(CheckpointError, match=r"no room for checkpoint step-2: it takes 1\.6 MB, and 1\.0 MB are free"):
        write_large(small_disk / "step-2", size=1_600_000)
    assert [p.name for p in small_disk.iterdir()] == ["step-1"]


def test_a_limit_on_files_is_told_as_a_full_disk_is(tmp_path: Path) -> None:
    write(tmp_path, 1)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match="step-2 could not be written: File too large"):
            write_large(tmp_path / "step-2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"]


@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_a_disk_that_is_full_at_the_last_moment_leaves_nothing_half(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems find out only when what was written is to be put on the disk, or named."""
    write(tmp_path, 1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with pytest.raises(CheckpointError, match="Disk quota exceeded"), monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "rename")), full)
        write(tmp_path, 2)
    assert [p.name for p in tmp_path.iterdir()] == ["step-1"] and checkpoint.verify(tmp_path / "step-1").step == 1


def test_large_weights_lie_in_shards_as_transformers_reads_them(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    sizes = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=2, num_key_value_heads=1))
    with checkpoint.staged(tmp_path / "large", metadata={}) as temp:
        save_tensors(temp / "model.safetensors", model.state_dict(), shard=20_000)
        model.config.save_pretrained(temp)
    large = tmp_path / "large"
    shards = sorted(p.name for p in large.glob("*.safetensors"))
    assert len(shards) > 2 and shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    read = AutoModelForCausalLM.from_pretrained(large).state_dict()
    again = load_tensors(large / "model.safetensors")
    assert all(torch.equal(value, again[name]) and torch.equal(value, read[name]) for name, value in read.items())
    (large / shards[1]).unlink()
    with pytest.raises(CheckpointError, match=f"{shards[1]} is missing"):
        checkpoint.verify(large)
    with pytest.raises(CheckpointError, match=f"{shards[1]} is missing"):
        load_tensors(large / "model.safetensors")


def test_views_of_shared_memory_are_written_whole_and_small(tmp_path: Path) -> None:
    whole = torch.arange(1000.0)
    save_tensors(tmp_path / "w.safetensors", {"part": whole[:4], "turned": whole.reshape(10, 100).T})
    assert (tmp_path / "w.safetensors").stat().st_size < 5000
    assert torch.equal(load_tensors(tmp_path / "w.safetensors")["part"], whole[:4])


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
    save_optimizer(tmp_path, optimizer.state_dict())
    save_tensors(tmp_path / "w.safetensors", model.state_dict())
    expected = [step(model, optimizer), step(model, optimizer)]
    again, fresh = training()
    again.load_state_dict(load_tensors(tmp_path / "w.safetensors"))
    fresh.load_state_dict(load_optimizer(tmp_path))
    assert [step(again, fresh), step(again, fresh)] == expected
