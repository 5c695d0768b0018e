"""A causal model's hidden states of sequences that lie one after the other, as if each were alone.

Most models of transformers take their attention from its interface: ours is registered there, attends inside each
sequence and nowhere else, and builds no mask. On a CPU one causal SDPA call a sequence beats a dense block mask 2.6
times; on CUDA all sequences are one call of torch's variable-length flash attention. Boundaries are the keyword
`boundaries`, which transformers passes from the backbone's forward down to its attention.

A model that keeps state between tokens (Mamba), biases attention by distance in its own way (Bloom, MPT), or adds sinks
(gpt-oss) is read one sequence a pass with its own attention. Which of the two it is, is not looked up but tried: packed
and alone must agree on the model itself, and so must its logits with what `loss.Head` makes of its hidden states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from gristmill.core.errors import ConfigError
from gristmill.train.loss import head_of

NAME = "gristmill_packed"
TRIED = (5, 9, 3)
"""Lengths of the sequences that a model is tried with: a leak would reach the second and the third."""
AGREE, ROUGHLY = {torch.float32: 1e-4, torch.float64: 1e-6}, 0.2
"""Largest relative difference that is rounding, and that of 16-bit weights: SmolLM2-135M with adapters comes to 0.065
after 30 layers. A leak is as large as the states, which is 1."""


@dataclass(frozen=True)
class Boundaries:
    """Where sequences lie in one pass, made once for all its layers. `starts` [sequences + 1] int32 on CUDA."""

    lengths: tuple[int, ...]
    starts: torch.Tensor | None

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device) -> Boundaries:
        if device.type != "cuda":
            return cls(tuple(lengths), None)
        starts = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return cls(tuple(lengths), starts.to(device, non_blocking=True))


class _Unpackable(Exception):
    """A model asks its attention for something that only its own attention does."""


@torch.compiler.disable  # type: ignore[untyped-decorator]
def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,  # noqa: ARG001  (transformers' signature; `_no_mask` never builds one)
    *,
    boundaries: Boundaries | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    position_bias: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """`query` [1, heads, tokens, width]; keys and values may have fewer heads. Gives [1, tokens, heads, width].

    A layer sees `sliding_window` tokens back, itself among them; `softcap` bends its scores (Gemma 2).
    """
    if s_aux is not None or position_bias is not None or not getattr(module, "is_causal", True):
        raise _Unpackable("its attention has sinks, a position bias, or looks ahead")
    if boundaries is None:
        raise _Unpackable("it does not tell its attention where sequences lie")
    longest = max(boundaries.lengths)
    window = sliding_window if sliding_window and sliding_window < longest else None
    flash = value.dtype in (torch.bfloat16, torch.float16) and value.shape[-1] == query.shape[-1] <= 256
    if boundaries.starts is not None and flash and query.shape[-1] % 8 == 0 and not dropout and not softcap:
        return _flash(query, key, value, boundaries.starts, longest, scaling, window), None
    wide = torch.promote_types(query.dtype, torch.float32)
    parts = zip(*(x.to(wide).split(boundaries.lengths, dim=2) for x in (query, key, value)), strict=True)
    out = [_one(*part, scaling=scaling, dropout=dropout, window=window, softcap=softcap) for part in parts]
    return torch.cat([x.transpose(1, 2) for x in out], dim=1).to(value.dtype), None


def _flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    starts: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """All sequences in one kernel. Its window counts the tokens before one, without that one itself."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (x[0].transpose(0, 1).to(value.dtype) for x in (query, key, value))
    reach = (-1 if window is None else window - 1, 0)
    grouped = query.shape[1] != key.shape[1]
    out: Any = varlen_attn(
        q, k, v, starts, starts, longest, longest, scale=scaling, window_size=reach, enable_gqa=grouped
    )
    return out[None]  # type: ignore[no-any-return]


def _one(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scaling: float | None,
    dropout: float,
    window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    """One sequence, in fp32 whatever the model's type is: exact softmax, and for short sequences the CPU's kernel is
    three times as fast as in bf16."""
    if softcap:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scaling is None else scaling)
        scores = (softcap * torch.tanh(scores / softcap)).masked_fill(~_seen(q, window), float("-inf"))
        return F.dropout(scores.softmax(-1), dropout) @ v
    far = window is not None and window < q.shape[2]
    grouped, mask = q.shape[1] != k.shape[1], _seen(q, window) if far else None
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=not far, scale=scaling, dropout_p=dropout, enable_gqa=grouped
    )


def _seen(q: torch.Tensor, window: int | None) -> torch.Tensor:
    """[tokens, tokens] which keys (columns) a query sees: those up to its own place, `window` of them."""
    length = q.shape[2]
    seen = torch.ones(length, length, dtype=torch.bool, device=q.device).tril_()
    return seen if window is None else seen.triu_(1 - window)


def _no_mask(*_: Any, **__: Any) -> None:
    """Boundaries say it: nothing to build."""


AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, _no_mask)


class Backbone:
    """A causal model below its head. `packs`: whether sequences are read together; if not, `why`."""

    def __init__(self, causal: Any, *, context: int) -> None:
        """Settles how sequences of up to `context` tokens are read, by trying it on the model."""
        self._causal, self._below, self._own = causal, below_head(causal), causal.config._attn_implementation
        self.packs, self.why = False, ""
        with _still(causal):
            ids, positions = _some_ids(causal)
            alone = self(ids, positions, TRIED)
            if causal.get_output_embeddings() is not None:
                _check_head(causal, ids, alone)
            self.why = _unpackable(causal, context) or self._try(ids, positions, alone)
        self.packs = not self.why
        if not self.packs:
            causal.set_attn_implementation(self._own)

    def _try(self, ids: torch.Tensor, positions: torch.Tensor, alone: torch.Tensor) -> str:
        """Read the same tokens packed: why that is another result, or nothing."""
        self._causal.set_attn_implementation(NAME)
        self.packs = True
        try:
            apart = _apart(self(ids, positions, TRIED), alone)
        except (_Unpackable, TypeError) as error:
            return str(error)
        return "" if apart <= AGREE.get(alone.dtype, ROUGHLY) else "packed sequences would change each other"

    @contextmanager
    def own_attention(self) -> Iterator[None]:
        """The model with the attention it came with, for a while: to generate, which needs a cache."""
        self._causal.set_attn_implementation(self._own)
        try:
            yield
        finally:
            self._causal.set_attn_implementation(NAME if self.packs else self._own)

    def __call__(self, ids: torch.Tensor, positions: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
        """The last hidden states [tokens, width] of sequences laid one after the other. `positions` count from 0 in
        each."""
        if self.packs:
            where = Boundaries.of(lengths, ids.device)
            out = self._below(input_ids=ids[None], position_ids=positions[None], boundaries=where, use_cache=False)
            return out.last_hidden_state[0]  # type: ignore[no-any-return]
        each = [self._below(input_ids=part[None], use_cache=False).last_hidden_state[0] for part in ids.split(lengths)]
        return torch.cat(each)


@contextmanager
def _still(model: Any) -> Iterator[None]:
    """A model in evaluation, without gradients, for a while."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def below_head(causal: Any) -> Any:
    """The part of a causal model that makes hidden states."""
    for part in (causal.get_decoder(), causal.base_model, getattr(causal, "model", None)):
        if isinstance(part, PreTrainedModel) and part is not causal:
            return part
    raise ConfigError(f"{type(causal).__name__} has no backbone below its head", "Choose another model.")


def _some_ids(causal: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens to try a model with, and their positions."""
    device = causal.get_input_embeddings().weight.device
    ids = (torch.arange(sum(TRIED), device=device) * 7919 + 1013) % causal.config.get_text_config().vocab_size
    return ids, torch.cat([torch.arange(length, device=device) for length in TRIED])


def _apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, relative to the length of each token's states."""
    return float(((a - b).norm(dim=-1) / b.norm(dim=-1)).max())


def _unpackable(causal: Any, context: int) -> str:
    """What a trial with short sequences cannot show."""
    config = causal.config.get_text_config()
    if not causal._can_set_attn_implementation():
        return "its attention is its own"
    chunk = getattr(config, "attention_chunk_size", None)
    return f"it attends in chunks of {chunk} tokens" if chunk and chunk < context else ""


def _check_head(causal: Any, ids: torch.Tensor, hidden: torch.Tensor) -> None:
    """The fused loss must be the loss of this model: its logits, from its hidden states."""
    first = slice(0, TRIED[0])
    theirs = causal(input_ids=ids[None, first], use_cache=False).logits[0].float()
    ours = head_of(causal).as_type(hidden.dtype).logits(hidden[first])[0].float()
    if theirs.shape != ours.shape or _apart(ours, theirs) > AGREE.get(hidden.dtype, ROUGHLY):
        raise ConfigError(
            f"{type(causal).__name__} makes its logits in a way that training does not know",
            "Choose another model: the loss would not be this one's.",
        )
