"""What lies on disk is read by a process that has never seen the model: it must be the model in memory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gristmill.core.errors import CheckpointError
from gristmill.models import merge, reread
from gristmill.models.load import load_model
from gristmill.models.renderer import Renderer
from gristmill.models.weights import locate


@pytest.fixture
def write(tmp_path: Path, model_folder: Path) -> Any:
    """Write the tiny model as a final folder."""

    def make() -> Path:
        weights = locate(str(model_folder), base=Path("/"))
        model, folder = load_model(weights), tmp_path / "final"
        merge.write_merged(model, folder, renderer=Renderer.load(weights), base=weights)
        return folder

    return make


def test_a_folder_that_holds_the_model_is_handed_on(write: Any) -> None:
    assert (write() / "manifest.json").is_file()


def one_weight(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    name = "model.layers.1.mlp.up_proj.weight"
    return {**state, name: state[name] + 1e-5}


def swapped(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    a, b = (f"model.layers.0.self_attn.{name}_proj.weight" for name in "kv")
    return {**state, a: state[b], b: state[a]}


def left_out(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in state.items() if name != "model.norm.weight"}


@pytest.mark.parametrize(
    ("change", "says"), [(one_weight, "logits differ"), (swapped, "logits differ"), (left_out, "model.norm.weight")]
)
def test_other_weights_on_disk_than_in_memory_hand_nothing_on(
    change: Any, says: str, write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = merge.save_tensors
    monkeypatch.setattr(merge, "save_tensors", lambda path, state: save(path, change(state)))
    with pytest.raises(CheckpointError, match=says) as raised:
        write()
    assert "same command" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_another_config_or_tokenizer_hands_nothing_on(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Renderer.save_tokenizer

    def other_config(self: Renderer, folder: Path) -> None:
        save(self, folder)
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"rms_norm_eps": 1e-2}))

    def other_template(self: Renderer, folder: Path) -> None:
        save(self, folder)
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text())
        settings["chat_template"] = settings["chat_template"].replace("<|im_end|>", "<|im_end|>!")
        path.write_text(json.dumps(settings))

    for change, says in ((other_config, "logits differ"), (other_template, "other tokens")):
        monkeypatch.setattr(Renderer, "save_tokenizer", change)
        with pytest.raises(CheckpointError, match=says):
            write()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_was_killed_is_started_again(write: Any) -> None:
    process = reread.READER.start()
    process.kill()
    process.wait()
    assert write().is_dir()


def test_the_reader_ends_with_its_parent(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from gristmill.models import reread\n"
        "print(reread.READER.start().pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    child = int(done.stdout)
    until = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":  # ended; whoever inherited it has not looked
            return
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
