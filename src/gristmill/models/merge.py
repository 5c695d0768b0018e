"""A trained model → a plain model folder: adapters merged in float32, tokenizer and template beside, one manifest."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gristmill.core.errors import ConfigError
from gristmill.models import catalogue, checkpoint, reread
from gristmill.models.load import SCORE, from_state, load_model
from gristmill.models.renderer import Renderer
from gristmill.models.state import INDEX, load_tensors, save_tensors, size_of
from gristmill.models.weights import MANIFEST, Weights

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

TENSORS = "model.safetensors"
PEFT = "base_model.model."
"""What peft puts before the names of a model's parts."""


def merged_state(
    model: PreTrainedModel | PeftModel, *, dtype: torch.dtype, base: Mapping[str, torch.Tensor] | None = None
) -> dict[str, torch.Tensor]:
    """Every weight by its plain name, adapters added in float32, rounded once to `dtype`. The model is not changed.

    `base`: the weights that adapters are merged into, by name, where the model holds them in 4 bits only.
    """
    import torch
    from peft.tuners.lora import LoraLayer

    from gristmill.models.tokens import HeadBeside, beside

    adapted = {_plain(name): m for name, m in model.named_modules() if isinstance(m, LoraLayer)}
    grown = {_plain(name): m for name, m in beside(model)}
    state: dict[str, torch.Tensor] = dict(base) if base is not None else {}
    with torch.no_grad():
        for key, value in model.state_dict().items() if base is None else ():
            name = _plain(key)
            if not _inside(name, adapted) and not _inside(name, grown):
                state[name] = value
        for name, layer in adapted.items():
            under: Any = layer.get_base_layer()
            state[f"{name}.weight"] = _merged(layer, under.weight if base is None else base[f"{name}.weight"])
            if under.bias is not None:
                state[f"{name}.bias"] = under.bias
        if base is not None and SCORE in base:
            head: Any = model.get_submodule(f"{PEFT}score")
            state[SCORE] = head.weight  # trained whole
        for name, part in grown.items():
            state[f"{name}.weight"] = part.exact()
            if isinstance(part, HeadBeside) and part.bias is not None:
                state[f"{name}.bias"] = part.bias
        if model.config.tie_word_embeddings:
            state = {name: value for name, value in state.items() if name not in _heads(model)}
        return {name: value.detach().cpu().to(dtype) for name, value in state.items()}


def _merged(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    """W + s·BA, with s = alpha / r or, for rsLoRA, alpha / √r (Kalajdzievski 2023). DoRA (Liu et al. 2024, eq. 5) then
    gives every output's row the length that it learned: m · (W + s·BA) / ‖W + s·BA‖."""
    import torch

    (adapter,) = layer.active_adapters
    whole: torch.Tensor = weight.float() + layer.get_delta_weight(adapter).float().to(weight.device)
    if adapter not in layer.lora_magnitude_vector:
        return whole
    across = 0 if getattr(layer, "fan_in_fan_out", False) else 1
    magnitude: torch.Tensor = layer.lora_magnitude_vector[adapter].weight.float().to(weight.device)
    share: torch.Tensor = magnitude / torch.linalg.vector_norm(whole, dim=across)
    return whole * share.unsqueeze(across)


def _plain(name: str) -> str:
    return name.removeprefix(PEFT)


def _inside(name: str, owners: Mapping[str, Any]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:at]) in owners for at in range(1, len(parts)))


def _heads(model: Any) -> set[str]:
    head = model.get_output_embeddings()
    return {f"{_plain(name)}.weight" for name, module in model.named_modules() if module is head}


def write_rounded(trained: Path, folder: Path, *, dtype: str) -> None:
    """A model folder's files in another precision; none of its manifest. A number that does not fit is an error."""
    import torch

    for file in trained.iterdir():
        if file.name != MANIFEST and not file.name.endswith((".safetensors", INDEX)):
            (folder / file.name).write_bytes(file.read_bytes())  # what is done to a copy must not reach the run
    kind = getattr(torch, dtype)
    tensors = {name: value.to(kind) for name, value in load_tensors(trained / TENSORS).items()}
    if lost := next((name for name, value in tensors.items() if not bool(value.isfinite().all())), None):
        raise ConfigError(f"{lost} has numbers that do not fit {dtype}", "Export in bf16 or fp32.")
    save_tensors(folder / TENSORS, tensors)
    config = orjson.loads((folder / "config.json").read_bytes()) | {"dtype": dtype}
    (folder / "config.json").write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))


def stated_base(model: PreTrainedModel | PeftModel, base: Weights) -> dict[str, str]:
    """What a manifest says of the base: where it was, its hash, and the precision it had under the adapters."""
    known = next((name for name, entry in catalogue.CATALOGUE.items() if entry.sha256 == base.sha256), base.source)
    whole: Any = model
    plain = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    held = "float32" if _in_four_bits(plain) else str(plain.dtype).removeprefix("torch.")
    return {"path": known or str(base.path), "form": base.form, "sha256": base.sha256, "dtype": held}


def _in_four_bits(plain: Any) -> bool:
    return bool(getattr(plain, "is_quantized", False))


def write_merged(
    model: PreTrainedModel | PeftModel,
    folder: Path,
    *,
    renderer: Renderer,
    base: Weights,
    dtype: str = "float32",
    metadata: dict[str, Any] | None = None,
) -> checkpoint.Manifest:
    """Write the folder that transformers, the exam and the server load.

    float32 by default: adapters move many weights by less than a bfloat16 step, which rounding would undo. Adapters
    over a base in 4 bits are merged into the base as it was before it was quantised. The folder is handed on only once
    a fresh process has read the same model from it.
    """
    import torch
    from peft import PeftModel

    kind = getattr(torch, dtype)
    plain: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    stated = {"base": stated_base(model, base), "dtype": dtype, "template": renderer.template_hash, **(metadata or {})}
    config = plain.config.to_dict() | {"dtype": dtype, "architectures": [type(plain).__name__]}
    config.pop("quantization_config", None)
    labels = list(plain.config.id2label.values()) if hasattr(plain, "score") else None
    whole = load_model(base, dtype="float32", head=labels).state_dict() if _in_four_bits(plain) else None
    reread.READER.start()
    state, settings = merged_state(model, dtype=kind, base=whole), type(plain.config).from_dict(config)
    with checkpoint.staged(folder, metadata=stated, size=size_of(state.values())) as temp:
        save_tensors(temp / TENSORS, state)
        settings.save_pretrained(temp)
        if getattr(plain, "generation_config", None) is not None:
            plain.generation_config.eos_token_id = sorted(renderer.vocabulary.ends)
            plain.generation_config.save_pretrained(temp)
        renderer.save_tokenizer(temp)
        memory = partial(from_state, type(plain), settings, state, dtype=dtype)
        reread.require_same(temp, memory, renderer=renderer, dtype=dtype)
    return checkpoint.read_manifest(folder)
