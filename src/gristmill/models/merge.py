"""A trained model → a plain model folder: adapters merged in float32, tokenizer and template beside, one manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.core.errors import CheckpointError
from gristmill.models import catalogue, checkpoint
from gristmill.models.renderer import Renderer
from gristmill.models.state import save_tensors
from gristmill.models.weights import Weights

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

_PEFT = "base_model.model."


def merged_state(model: PreTrainedModel | PeftModel, *, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every weight by its plain name, adapters added in float32, rounded once to `dtype`. The model is not changed."""
    import torch
    from peft.tuners.lora import LoraLayer

    deltas = {
        f"{name.removeprefix(_PEFT)}.weight": sum(
            (module.get_delta_weight(adapter).float() for adapter in module.active_adapters),
            start=torch.zeros((), dtype=torch.float32),
        )
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    state = {}
    with torch.no_grad():
        for key, value in model.state_dict().items():
            name = key.removeprefix(_PEFT).replace(".base_layer.", ".")
            if ".lora_" not in name:
                state[name] = (value.float() + deltas.pop(name).cpu() if name in deltas else value).to(dtype)
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    if deltas:
        raise CheckpointError(f"adapters without a weight to merge into: {', '.join(deltas)}", "Adapt linear layers.")
    return state


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

    float32 by default: adapters move many weights by less than a bfloat16 step, which rounding would undo.
    """
    import torch
    from peft import PeftModel

    kind = getattr(torch, dtype)
    known = next((name for name, entry in catalogue.CATALOGUE.items() if entry.sha256 == base.sha256), None)
    stated = {"base": {"path": known or str(base.path), "form": base.form, "sha256": base.sha256}, "dtype": dtype}
    stated |= {"template": renderer.template_hash, **(metadata or {})}
    plain: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    config = plain.config.to_dict() | {"dtype": dtype, "architectures": [type(plain).__name__]}
    with checkpoint.staged(folder, metadata=stated) as temp:
        save_tensors(temp / "model.safetensors", merged_state(model, dtype=kind))
        type(plain.config).from_dict(config).save_pretrained(temp)
        if plain.generation_config is not None:
            plain.generation_config.save_pretrained(temp)
        renderer.save_tokenizer(temp)
    return checkpoint.verify(folder)
