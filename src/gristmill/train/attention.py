"""Attention inside each packed sequence and nowhere else, registered with transformers under its own name.

On a CPU one causal SDPA call a sequence beats a dense block mask 2.6 times, and costs nothing for what it leaves
out. The boundaries reach it as the keyword `lengths`, which transformers passes from the backbone's forward down to
its attention.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface

from gristmill.core.errors import ConfigError

NAME = "gristmill_packed"


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001  (transformers' signature; `no_mask` never builds one)
    *,
    lengths: tuple[int, ...],
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """`query` [1, heads, tokens, width]; keys and values may have fewer heads. Gives [1, tokens, heads, width].

    Runs in fp32 whatever the inputs are: exact softmax, and for short sequences the CPU kernel is three times as
    fast as in bf16.
    """
    kind = query.dtype
    parts = zip(*(x.float().split(lengths, dim=2) for x in (query, key, value)), strict=True)
    grouped = query.shape[1] != key.shape[1]
    out = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, dropout_p=dropout, enable_gqa=grouped)
        for q, k, v in parts
    ]
    del module
    return torch.cat(out, dim=2).transpose(1, 2).to(kind), None


def no_mask(*_: Any, **__: Any) -> None:
    """Boundaries are in `lengths`: nothing to build."""


def use_packed_attention(model: Any, *, context: int) -> None:
    """Make `model` attend inside sequences alone. Refuses attention that this function would silently change."""
    config = model.config
    window = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    bent = [name for name in ("attn_logit_softcapping", "attention_chunk_size") if getattr(config, name, None)]
    if bent or (window and window < context):
        raise ConfigError(
            f"{type(model).__name__} bends its attention ({', '.join(bent) or 'sliding window'}): not supported",
            f"Choose another model{f', or a context of at most {window}' if window else ''}.",
        )
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, no_mask)
    model.set_attn_implementation(NAME)
