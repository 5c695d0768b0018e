"""How a GGUF describes a model that transformers knows: names of tensors, config, and the order of rotary dimensions.

Two families are mapped here, in both directions, because both directions are proven by tests: `llama` (SmolLM2, Llama,
Mistral) and `qwen2`. Tensor names are those of gguf's `MODEL_TENSOR_NAMES`; anything not named here is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.core.errors import ConfigError
from gristmill.models.gguf_file import GgufFile

Array = npt.NDArray[Any]

_OUTER = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_GGUF_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")
FAMILIES = ("llama", "qwen2")
FAMILY_OF = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""GGUF's name for a transformers `model_type`."""
_HF_NAME = re.compile(r"(?:model\.layers\.(\d+)\.)?([\w.]+)\.(weight|bias)")
_TO_GGUF = {hf: name for table in (_OUTER, _BLOCK) for name, hf in table.items()}


def check_family(file: GgufFile) -> None:
    if file.architecture not in FAMILIES or "rope_freqs.weight" in file.tensors or file.arch("rope.scaling.type"):
        raise ConfigError(
            f"{file.path.name}: weights of this architecture ({file.architecture or 'none named'}) cannot be unpacked",
            f"Supported from GGUF: {', '.join(FAMILIES)}, without rotary scaling. Or give the model as an HF folder.",
        )


def hf_name(name: str) -> str:
    """`blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`."""
    hit = _GGUF_NAME.fullmatch(name)
    table = _BLOCK if hit and hit[1] else _OUTER
    if hit is None or hit[2] not in table:
        raise ConfigError(f"the tensor {name} is not known in this architecture", "Give the model as an HF folder.")
    prefix = f"model.layers.{hit[1]}." if hit[1] else ""
    return f"{prefix}{table[hit[2]]}.{hit[3]}"


def gguf_name(name: str) -> str:
    """`model.layers.3.self_attn.q_proj.weight` → `blk.3.attn_q.weight`: the inverse of `hf_name`."""
    hit = _HF_NAME.fullmatch(name)
    if hit is None or hit[2] not in _TO_GGUF or (hit[1] is None) != (_TO_GGUF[hit[2]] in _OUTER):
        raise ConfigError(f"the tensor {name} has no name in a GGUF of this architecture", "Export it as an HF folder.")
    return f"{f'blk.{hit[1]}.' if hit[1] else ''}{_TO_GGUF[hit[2]]}.{hit[3]}"


def maps(family: str, names: Iterable[str]) -> bool:
    """Whether every tensor of a model has a name in this family's GGUF; qwen2 alone has biases there."""
    allowed = {"attn_q", "attn_k", "attn_v"} if family == "qwen2" else set()
    hits = [_HF_NAME.fullmatch(name) for name in names]
    return all(h and h[2] in _TO_GGUF and (h[3] == "weight" or _TO_GGUF[h[2]] in allowed) for h in hits)


def hf_config(file: GgufFile) -> dict[str, Any]:
    """The transformers config of a GGUF."""
    check_family(file)
    heads = file.arch("attention.head_count")
    config = {
        "model_type": file.architecture,
        "vocab_size": file.tensors["token_embd.weight"].shape[1],
        "hidden_size": file.arch("embedding_length"),
        "intermediate_size": file.arch("feed_forward_length"),
        "num_hidden_layers": file.arch("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": file.arch("attention.head_count_kv", heads),
        "max_position_embeddings": file.arch("context_length"),
        "rms_norm_eps": round(file.arch("attention.layer_norm_rms_epsilon"), 12),
        "rope_theta": file.arch("rope.freq_base", 10000.0),
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    if file.architecture == "llama":
        config["head_dim"] = file.arch("rope.dimension_count") or file.arch("embedding_length") // heads
    for key, name in (("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
        config[f"{name}_token_id"] = file.get(f"tokenizer.ggml.{key}_token_id")
    return config


def rotary_heads(file: GgufFile, name: str) -> int | None:
    """How many heads a tensor's rows are made of, where ggml keeps their rotary dimensions in another order."""
    if file.architecture != "llama":
        return None
    if ".attn_q." in name:
        return int(file.arch("attention.head_count"))
    if ".attn_k." in name:
        return int(file.arch("attention.head_count_kv", file.arch("attention.head_count")))
    return None


def to_ggml_rows(rows: Array, heads: int) -> Array:
    """Rotary pairs (i, i + d/2), as transformers keeps them, to (2i, 2i + 1), as ggml's llama does."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def to_hf_rows(rows: Array, heads: int) -> Array:
    """The inverse of `to_ggml_rows`."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def read_tensor(file: GgufFile, name: str, data: Array) -> Array:
    """One tensor as float32, in transformers' shape and order. `data` is the whole file as bytes (a memory map)."""
    import gguf

    place = file.tensors[name]
    kind = gguf.GGMLQuantizationType(place.type)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    raw = data[place.offset : place.offset + place.elements // block * size]
    shape = gguf.quant_shape_to_byte_shape(place.shape[::-1], kind)
    values = np.require(gguf.dequantize(raw.reshape(shape), kind), np.float32, "W")
    heads = rotary_heads(file, name)
    return to_hf_rows(values, heads) if heads else values
