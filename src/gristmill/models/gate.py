"""The gate before a GGUF is served or examined: is it the model that was trained?

Three proofs. Every tensor of the file is, byte for byte, the model's tensor in the file's quantisation. llama.cpp reads
prompts as exactly the tokens that the renderer made. And along llama.cpp's greedy continuation, transformers must
choose the same token nearly always (or miss it by a near tie, which quantisation may decide), with nearly the same
log-probability. llama.cpp runs in a short process of its own (`gate_child`); this room may not ask `llm`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.errors import CheckpointError
from gristmill.core.records import Message
from gristmill.models.gguf import same_tensors
from gristmill.models.gguf_file import read_gguf
from gristmill.models.load import load_model
from gristmill.models.renderer import Rendered, Renderer
from gristmill.models.weights import Weights

PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "List three primes below 20.",
    "Add 17 and 26, then double it.",
    "Translate to German: good morning, my friend.",
    "def area(width, height):\n    # what should this return?",
    "Où est la gare? 東京はどこですか。 🙂",
    "  Spaces,\ttabs and\n\nblank lines: what are they for?",
)
_ADDED = 64
MIN_AGREEMENT = 0.9
NEAR_TIE = 0.2
MAX_DIVERGENCE = {1: 0.02, 7: 0.15}
"""Mean difference of the chosen tokens' log-probabilities, by the GGUF's file type (1 f16, 7 q8_0). Measured on
SmolLM2, which is small and so the most sensitive: 0.002 for f16, 0.07 for q8_0; its base in its place gave 0.36."""


@dataclass(frozen=True)
class Same:
    """What was compared, and how near the two are."""

    prompts: int
    tokens: int
    tensors: int  # compared byte for byte; 0 where the architecture is not mapped
    agreement: float  # share of tokens that both choose, near ties included
    divergence: float  # mean absolute difference of the chosen tokens' log-probabilities


def prove_same(
    weights: Weights,
    gguf: Path,
    *,
    adapter: Path | None = None,
    prompts: Sequence[str] = PROMPTS,
    tokens: int = 16,
    threads: int = 2,
    seconds: float = 300,
) -> Same:
    """Compare a model folder with the GGUF made from it; a CheckpointError with figures if they differ.

    With `adapter`, a LoRA GGUF, `gguf` is that of the base: together they must be the model, whose tensors they hold in
    another way, so that `same_adapter` compares those.
    """
    tensors = 0 if adapter else same_tensors(weights, gguf)
    renderer = Renderer.load(weights)
    asked = [rendered(renderer, prompt) for prompt in prompts]
    added = _added(renderer)
    answers = _llama_cpp(gguf, asked, list(added), adapter=adapter, tokens=tokens, threads=threads, seconds=seconds)
    read = [*zip(prompts, (a.ids for a in asked), (b["ids"] for b in answers["prompts"]), strict=True)]
    read += [*zip(added, ([at] for at in added.values()), answers["added"], strict=True)]
    for text, mine, theirs in read:
        if mine != theirs:
            raise CheckpointError(
                f"{gguf.name} reads {text!r} as other tokens than the model was trained on",
                "Its tokenizer is not the model's: export again from the right base.",
            )
    runs = [(a.ids, b["chosen"], b["logprobs"]) for a, b in zip(asked, answers["prompts"], strict=True)]
    same = replace(_compare(weights, runs), tensors=tensors)
    bound = MAX_DIVERGENCE.get(read_gguf(gguf).get("general.file_type"), max(MAX_DIVERGENCE.values()))
    if same.agreement < MIN_AGREEMENT or same.divergence > bound:
        raise CheckpointError(
            f"{gguf.name} is not the trained model: {same.agreement:.0%} of {same.tokens} tokens agree "
            f"(at least {MIN_AGREEMENT:.0%}), mean log-probability difference {same.divergence:.3f} "
            f"(at most {bound})",
            "Export again; a file written by another version may be in the way.",
        )
    return same


def _added(renderer: Renderer) -> dict[str, int]:
    """The last tokens added beside the merged ones, special or not: new ones are among them."""
    found = renderer.vocabulary.tokenizer.get_added_tokens_decoder().items()
    return {token.content: at for at, token in sorted(found)[-_ADDED:]}


def rendered(renderer: Renderer, prompt: str) -> Rendered:
    if renderer.chats:
        return renderer.chat([Message(role="user", content=prompt)], generate=True)
    return Rendered(renderer.encode(prompt), [], prompt)


def _llama_cpp(
    gguf: Path,
    asked: Sequence[Rendered],
    added: list[str],
    *,
    adapter: Path | None,
    tokens: int,
    threads: int,
    seconds: float,
) -> Any:
    question = {
        "gguf": str(gguf),
        "adapter": str(adapter or ""),
        "context": max(len(r.ids) for r in asked) + tokens + 8,
        "threads": threads,
        "tokens": tokens,
        "prompts": [{"text": r.text, "ids": r.ids} for r in asked],
        "added": added,
    }
    command = [sys.executable, "-m", "gristmill.models.gate_child"]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        done = subprocess.run(
            command, input=orjson.dumps(question), capture_output=True, timeout=seconds, check=False, env=environment
        )
    except subprocess.TimeoutExpired as error:
        raise CheckpointError(f"llama.cpp did not answer for {gguf.name} in {seconds:.0f} s", "Try again.") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = " ".join(([line for line in said if "rror" in line] or said)[-2:])
        raise CheckpointError(f"llama.cpp cannot run {gguf.name}: {reason}", "Export it again.")
    return orjson.loads(done.stdout)


def _compare(weights: Weights, runs: Sequence[tuple[list[int], list[int], list[float]]]) -> Same:
    """Walk along llama.cpp's tokens with the transformers model."""
    import torch

    model = load_model(weights, dtype="float32")
    agreed, gaps = 0, []
    with torch.inference_mode():
        for prompt, chosen, logprobs in runs:
            logits = model(torch.tensor([prompt + chosen])).logits[0, len(prompt) - 1 : -1]
            own = torch.log_softmax(logits.float(), -1)
            if not chosen:
                continue
            expected = own[torch.arange(len(chosen)), torch.tensor(chosen)]
            agreed += int((own.max(-1).values - expected <= NEAR_TIE).sum())
            gaps += (expected - torch.tensor(logprobs)).abs().tolist()
    if not gaps:
        raise CheckpointError("llama.cpp chose no token that could be compared", "Compare on other prompts.")
    return Same(len(runs), len(gaps), 0, agreed / len(gaps), sum(gaps) / len(gaps))
