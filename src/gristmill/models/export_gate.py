"""The gate before a model folder or an adapter leaves: read by transformers and peft alone, in a fresh process, is it
the model that was trained?

A folder must give the same token ids, and logits equal to the bit to the trained weights in the folder's own precision;
where that is a rounded one, the mean log-probability of the tokens that the trained model prefers may have moved by
`ROUNDED`: SmolLM2, small and so the most sensitive, moves by 0.038 in bfloat16 and 0.004 in float16. Adapters over
their base, in float32, must give the merged model's within `ADAPTED`; SmolLM2's are 3e-6 away.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gristmill.core.errors import CheckpointError
from gristmill.models.gate import PROMPTS, rendered
from gristmill.models.load import has_score_head, load_model
from gristmill.models.renderer import Renderer
from gristmill.models.weights import Weights

if TYPE_CHECKING:
    import torch

ROUNDED = {"float32": 0.0, "float16": 0.02, "bfloat16": 0.1}
ADAPTED = 0.01
_HINT = "Nothing was exported. Train again, or report it: a library may read the files in another way."


@dataclass(frozen=True)
class Read:
    """What was compared, and how far the exported model's log-probabilities are from the trained one's."""

    prompts: int
    tokens: int
    divergence: float


def prove_folder(trained: Weights, folder: Path, *, dtype: str, prompts: Sequence[str] = PROMPTS) -> Read:
    """A model folder written in `dtype` against the weights it was written from."""
    asked, found = _ask({"mode": "folder", "folder": str(folder)}, trained, prompts)
    expected = _logits(trained, asked, dtype=dtype)
    if any(not mine.equal(theirs) for mine, theirs in zip(expected, found, strict=True)):
        far = max(float((a - b).abs().max()) for a, b in zip(expected, found, strict=True))
        raise CheckpointError(f"{folder.name} is not the trained model: its logits differ by up to {far:g}", _HINT)
    whole = expected if dtype == "float32" else _logits(trained, asked, dtype="float32")
    return _near(whole, found, asked, bound=ROUNDED[dtype], what=f"{folder.name} in {dtype}")


def prove_adapter(
    trained: Weights, adapter: Path, *, base: Weights, dtype: str, prompts: Sequence[str] = PROMPTS
) -> Read:
    """Adapters over `base`, which had the precision `dtype` under them, against the merged weights."""
    config = orjson.loads((trained.path / "config.json").read_bytes())
    labels = list(config["id2label"].values()) if has_score_head(trained) else []
    under = {"path": str(base.path), "form": base.form, "sha256": base.sha256, "dtype": dtype, "labels": labels}
    asked, found = _ask({"mode": "adapter", "folder": str(adapter), "base": under}, trained, prompts)
    whole = _logits(trained, asked, dtype="float32")
    return _near(whole, found, asked, bound=ADAPTED, what="the adapter over its base")


def _ask(
    question: dict[str, Any], trained: Weights, prompts: Sequence[str]
) -> tuple[list[list[int]], list[torch.Tensor]]:
    """The prompts' tokens as training rendered them, once the fresh process has read the same; and its logits."""
    import torch
    from safetensors.torch import load_file

    renderer = Renderer.load(trained)
    asked = [rendered(renderer, prompt) for prompt in prompts]
    with tempfile.TemporaryDirectory(prefix="gristmill-gate-") as place:
        answers = Path(place) / "logits.safetensors"
        question |= {"texts": [a.text for a in asked], "logits": str(answers), "threads": torch.get_num_threads()}
        command = [sys.executable, "-m", "gristmill.models.export_child"]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, input=orjson.dumps(question), capture_output=True, check=False, env=environment)
        if done.returncode != 0:
            reason = " ".join(done.stderr.decode(errors="replace").strip().splitlines()[-2:])
            raise CheckpointError(f"a fresh process cannot load what was written: {reason}", _HINT)
        ids = orjson.loads(done.stdout)
        if ids != [a.ids for a in asked]:
            raise CheckpointError("a fresh process reads text as other tokens than the model was trained on", _HINT)
        logits = load_file(answers)
    return ids, [logits[str(at)] for at in range(len(ids))]


def _logits(weights: Weights, asked: Sequence[list[int]], *, dtype: str) -> list[torch.Tensor]:
    """float32 [tokens, vocabulary] of each prompt, by our own loader."""
    import torch

    model: Any = load_model(weights, dtype=dtype)
    with torch.inference_mode():
        return [model(input_ids=torch.tensor([ids])).logits.reshape(-1, _width(model)).float() for ids in asked]


def _width(model: Any) -> int:
    head = model.get_output_embeddings()
    return int(model.config.num_labels if head is None else len(head.weight))


def _near(
    whole: Sequence[torch.Tensor], found: Sequence[torch.Tensor], asked: Sequence[list[int]], *, bound: float, what: str
) -> Read:
    import torch

    gaps: list[torch.Tensor] = []
    for mine, theirs in zip(whole, found, strict=True):
        best = mine.argmax(-1, keepdim=True)
        gap = mine.log_softmax(-1).gather(-1, best) - theirs.log_softmax(-1).gather(-1, best)
        gaps.append(gap.abs().flatten())
    far = float(torch.cat(gaps).mean())
    if not far <= bound:  # NaN included
        raise CheckpointError(
            f"{what} is not the trained model: mean log-probability difference {far:.4f}, at most {bound}", _HINT
        )
    return Read(len(asked), sum(map(len, asked)), far)
