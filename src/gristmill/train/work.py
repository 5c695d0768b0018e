"""How much of the machine a training uses: arithmetic that its steps need, over what the machine can do.

Floating-point operations of a step, for weights W that multiply and sequences of n tokens (Kaplan et al. 2020, arXiv
2001.08361; Chowdhery et al. 2022, arXiv 2204.02311, appendix B):

    trained weights      6 · W a token: 2 forward, 2 for the gradient of their input, 2 for their own
    frozen weights       4 · W a token: their own gradient is not made
    output head          the same, of positions that are asked alone
    attention            12 · layers · heads · width · pairs, with n² / 2 pairs of a sequence

What is computed twice (activation checkpointing) counts once. The peak is not a data sheet's but a product of matrices,
timed when training begins: on the same threads, in the same type, beside whatever else the machine is doing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from gristmill.train.packing import Packed

TIMED = 0.2
"""Seconds that the peak may take to measure."""

SIZE = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices that are multiplied."""


@dataclass(frozen=True)
class Work:
    """What a model's step costs, in floating-point operations."""

    token: float  # of every token read
    asked: float  # of every position that is asked for its next token
    pair: float  # of every two tokens that see each other, over all layers with full attention
    windowed: float  # the same, over the layers that see no further than `window`
    window: int

    @classmethod
    def of(cls, model: Any) -> Work:
        """Of a causal model, with adapters or without."""
        causal = model.get_base_model() if hasattr(model, "get_base_model") else model
        config = causal.config.get_text_config()
        head = causal.get_output_embeddings()
        tables = [m for m in causal.modules() if isinstance(m, torch.nn.Embedding)]
        asking = list(head.parameters()) if head is not None else []
        outside = {id(p) for p in (*asking, *(p for table in tables for p in table.parameters()))}
        token = sum(_cost(p, config) for p in model.parameters() if id(p) not in outside)
        heads = getattr(config, "num_attention_heads", None) or 0
        width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
        kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
        near = kinds.count("sliding_attention")
        each = 12.0 * heads * width
        window = getattr(config, "sliding_window", None) or 0
        full = kinds.count("full_attention")
        return cls(token, sum(_cost(p, config) for p in asking), each * full, each * near, window)

    def of_parts(self, parts: Iterable[Packed]) -> float:
        """Of one step's forward and backward passes."""
        return sum(
            self.token * len(part.ids)
            + self.asked * len(part.targets)
            + sum(self.pair * n * n / 2 + self.windowed * _pairs(n, self.window) for n in part.lengths)
            for part in parts
        )


def _cost(p: torch.nn.Parameter, config: Any) -> float:
    """Of one token, of a parameter that multiplies; of experts, those that a token is sent to."""
    packed = getattr(p, "quant_state", None)  # four bits a weight, two to a byte
    shape = p.shape if packed is None else packed.shape
    if len(shape) < 2:
        return 0.0
    share = 1.0
    if len(shape) == 3:
        of = next((n for name in _EXPERTS if (n := getattr(config, name, None))), shape[0])
        share = min(1.0, (getattr(config, "num_experts_per_tok", None) or of) / of)
    return (6.0 if p.requires_grad else 4.0) * share * float(torch.Size(shape).numel())


_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


def _pairs(n: int, window: int) -> float:
    near = min(n, window)
    return near * n - near * near / 2


@cache
def measured_peak(device: torch.device, dtype: torch.dtype, threads: int) -> float:
    """Operations a second of this process, the best of the products that fit into `TIMED`. On a CPU it is that of
    `threads`, which the caller has set."""
    del threads
    size = SIZE[device.type]
    noise = torch.Generator(device).manual_seed(0)  # of its own: training's draws stay what they were
    a, b = (torch.randn(size, size, generator=noise, device=device).to(dtype) for _ in range(2))
    best, end = 0.0, time.perf_counter() + TIMED
    while time.perf_counter() < end:
        begun = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2.0 * size**3 / (time.perf_counter() - begun))
    return best
