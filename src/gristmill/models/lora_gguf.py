"""Adapters as a GGUF that llama.cpp lays over a GGUF of their base.

llama.cpp adds alpha / r · BAx to what a layer gives, and knows no more: rsLoRA's alpha / √r is written as the alpha
that comes to the same; DoRA and rows of new tokens cannot be said, so such adapters are exported merged. Names and keys
are those of llama.cpp's llama-adapter.cpp.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from gristmill.core.errors import CheckpointError, ConfigError
from gristmill.core.files import atomic
from gristmill.models import architecture, checkpoint
from gristmill.models.adapter import CONFIG, TENSORS
from gristmill.models.architecture import Array
from gristmill.models.gguf_file import GgufFile, read_gguf
from gristmill.models.merge import PEFT

_ALPHA = "adapter.lora.alpha"


def write_lora(adapter: Path, target: Path, *, base: GgufFile, name: str) -> None:
    """Write the adapters of a verified folder. `base` says how the base's GGUF orders rotary dimensions."""
    import gguf

    checkpoint.verify(adapter)
    settings = _settings(adapter)
    with atomic(target) as file:
        path = Path(file.name)  # written by gguf's writer, then synced and renamed by `atomic`
        writer = gguf.GGUFWriter(path, base.architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(name)
        writer.add_string("adapter.type", "lora")
        writer.add_float32(_ALPHA, _alpha(settings))
        for tensor, values in _tensors(adapter, base):
            writer.add_tensor(tensor, values)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def same_adapter(adapter: Path, path: Path, *, base: GgufFile) -> int:
    """How many tensors of a LoRA GGUF are, byte for byte, those of the adapter folder: all, or a CheckpointError."""
    file = read_gguf(path)
    data = np.memmap(path, dtype=np.uint8, mode="r")
    expected = dict(_tensors(adapter, base))
    if expected.keys() != file.tensors.keys() or file.get(_ALPHA) != np.float32(_alpha(_settings(adapter))):
        raise CheckpointError(f"{path.name} holds other tensors or another alpha than the adapter", "Export it again.")
    for name, place in file.tensors.items():
        raw = expected[name].reshape(-1).view(np.uint8)
        if not np.array_equal(raw, data[place.offset : place.offset + raw.size]):
            raise CheckpointError(f"{path.name} is not the trained adapter: {name} differs", "Export it again.")
    return len(expected)


def _settings(adapter: Path) -> dict[str, Any]:
    settings: dict[str, Any] = orjson.loads((adapter / CONFIG).read_bytes())
    cannot = [
        *(["DoRA's lengths"] if settings.get("use_dora") else []),
        *(["rows of new tokens"] if settings.get("trainable_token_indices") else []),
        *(["ranks that differ"] if settings.get("rank_pattern") or settings.get("alpha_pattern") else []),
    ]
    if cannot:
        raise ConfigError(
            f"a LoRA GGUF cannot hold {' or '.join(cannot)}", "Export the merged model: --format gguf (or hf, or lora)."
        )
    return settings


def _alpha(settings: dict[str, Any]) -> float:
    alpha, rank = float(settings["lora_alpha"]), int(settings["r"])
    return alpha * sqrt(rank) if settings.get("use_rslora") else alpha


def _tensors(adapter: Path, base: GgufFile) -> Iterator[tuple[str, Array]]:
    """A as [r, in] and B as [out, r], float32, B's rows in the order that the base's have in ggml."""
    from safetensors import safe_open

    architecture.check_family(base)
    with safe_open(str(adapter / TENSORS), framework="np") as file:
        for key in sorted(file.keys()):
            layer, _, part = key.removeprefix(PEFT).removesuffix(".weight").rpartition(".")
            name = architecture.gguf_name(f"{layer}.weight")
            values = np.asarray(file.get_tensor(key), np.float32)
            heads = architecture.rotary_heads(base, name) if part == "lora_B" else None
            rows = architecture.to_ggml_rows(values, heads) if heads else values
            yield f"{name}.{part.lower()}", np.ascontiguousarray(rows)
