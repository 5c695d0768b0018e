"""Before a model folder is handed on, a process that has never seen the model reads it and answers.

It must read a fixed prompt as the same tokens, and give for them the same logits, bit for bit, as the weights in memory
that the folder was written from. What that finds and a hash of the files cannot: a tensor under a wrong name or left
out, a config, tokenizer or template that makes another model of the same weights.

The process is kept for a while, since starting it takes longer than its work, and it may be started before the folder
is whole.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gristmill.core.errors import CheckpointError
from gristmill.core.records import Message, digest_of
from gristmill.models.renderer import Renderer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PROMPT = "Où est la gare? 東京は 🙂\n\n  1 + 2 = 3; def mill(grain): the quick brown fox grinds it."
_AGAIN = "The checkpoints are untouched: run the same command again. If it says the same, it is a defect: report it."


def prompt_ids(renderer: Renderer) -> list[int]:
    """The prompt as the model would be sent it, through its template if it has one."""
    if renderer.chats:
        return renderer.chat([Message(role="user", content=PROMPT)], generate=True).ids
    return renderer.encode(PROMPT)


def logits_of(model: Any, ids: list[int]) -> torch.Tensor:
    """float32 [tokens, vocabulary], or [1, labels] of a score head."""
    import torch

    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=torch.tensor([ids])).logits
    return logits.reshape(-1, logits.shape[-1]).float().contiguous()


class Reader:
    """The process, and one question at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._words = ""  # the last ones of one that died
        atexit.register(self.end)

    def start(self) -> subprocess.Popen[bytes]:
        """Started now if it is not there. It ends with the thread that starts it."""
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._said = tempfile.TemporaryFile()  # noqa: SIM115  (as long as the process)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gristmill.models.reread_child", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
            )
        return self._process

    def end(self) -> None:
        """It is started again when there is something to read."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._said.close()
            self._process = None

    def read(self, folder: Path, *, dtype: str) -> tuple[list[int], torch.Tensor]:
        """The prompt's tokens and logits, by what lies in `folder`."""
        import numpy as np
        import torch

        asked = {"folder": str(folder), "name": digest_of([str(folder), os.urandom(8).hex()]), "dtype": dtype}
        line = orjson.dumps(asked | {"threads": torch.get_num_threads()}) + b"\n"
        with self._lock:
            answer, raw = self._ask(line) or self._ask(line) or (None, b"")  # it may have ended, idle, just now
        if answer is None:
            raise CheckpointError(f"the process that reads {folder.name} again died: {self._words}", _AGAIN)
        if "error" in answer:
            raise CheckpointError(f"what was written cannot be read again: {answer['error']}", _AGAIN)
        return answer["ids"], torch.from_numpy(np.frombuffer(raw, np.float32).reshape(answer["shape"]).copy())

    def _ask(self, line: bytes) -> tuple[Any, bytes] | None:
        """An answer and what follows it; None when the process ended before."""
        process = self.start()
        if process.stdin is None or process.stdout is None:
            raise CheckpointError("the process that reads a folder again has no pipes", _AGAIN)
        with suppress(BrokenPipeError):
            process.stdin.write(line)
            process.stdin.flush()
            if head := process.stdout.readline():
                answer = orjson.loads(head)
                size = 4 * prod(answer.get("shape", [0]))
                if len(raw := process.stdout.read(size)) == size:
                    return answer, raw
        self._said.seek(0)
        self._words = " ".join(self._said.read().decode(errors="replace").split()[-40:])
        self.end()
        return None


READER = Reader()
"""Of this process: trainings one after another ask the same one."""


def require_same(folder: Path, memory: Callable[[], PreTrainedModel], *, renderer: Renderer, dtype: str) -> None:
    """Raise a CheckpointError unless the model and tokenizer in `folder` are those in `memory`."""
    ids, found = READER.read(folder, dtype=dtype)
    if ids != prompt_ids(renderer):
        raise CheckpointError("what was written reads text as other tokens than the model was trained on", _AGAIN)
    expected = logits_of(memory(), ids)
    if found.shape != expected.shape:
        raise CheckpointError(
            f"what was written gives {tuple(found.shape)} logits, not {tuple(expected.shape)}", _AGAIN
        )
    few = len(found) == 1  # scores of a head so narrow that its sums follow where it lies in memory
    if not (found.allclose(expected, rtol=1e-5, atol=1e-5) if few else found.equal(expected)):
        far = float((found - expected).abs().max())
        raise CheckpointError(f"what was written is not the model in memory: logits differ by up to {far:g}", _AGAIN)
