"""Trained adapters alone, as peft loads them over the base: LoRA, rsLoRA, DoRA, and the rows of new tokens."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gristmill.models import checkpoint
from gristmill.models.lora import SCORE
from gristmill.models.merge import PEFT, stated_base
from gristmill.models.renderer import Renderer
from gristmill.models.state import save_tensors
from gristmill.models.tokens import HeadBeside, beside
from gristmill.models.weights import Weights

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_ROWS = "token_adapter.trainable_tokens_delta"
"""peft's name for rows of an embedding that stand apart; it holds the rows themselves, not a difference."""


def write_adapter(
    model: PeftModel, folder: Path, *, renderer: Renderer, base: Weights, metadata: dict[str, Any] | None = None
) -> checkpoint.Manifest:
    """Write adapters, config and tokenizer. peft's config holds sets, whose order differs from process to process."""
    from peft import get_peft_model_state_dict

    grown = {name.removeprefix(PEFT): module for name, module in beside(model)}
    tensors: dict[str, torch.Tensor] = {
        name: value
        for name, value in get_peft_model_state_dict(model, save_embedding_layers=False).items()
        if "lora_" in name
    }
    tied = bool(model.config.tie_word_embeddings)
    rows = {name: module.rows for name, module in grown.items() if not (tied and isinstance(module, HeadBeside))}
    tensors |= {f"{PEFT}{name}.{_ROWS}": value.detach() for name, value in rows.items()}
    scored: Any = getattr(model.get_base_model(), SCORE, None)
    if scored is not None:
        tensors[f"{PEFT}{SCORE}.weight"] = scored.weight.detach()
    stated = {"base": stated_base(model, base), "template": renderer.template_hash, **(metadata or {})}
    with checkpoint.staged(folder, metadata=stated) as temp:
        save_tensors(temp / TENSORS, tensors)
        model.peft_config["default"].save_pretrained(str(temp))
        settings = orjson.loads((temp / CONFIG).read_bytes()) | {"base_model_name_or_path": base.sha256}
        settings["target_modules"] = sorted(settings["target_modules"])
        if rows:
            added = list(renderer.vocabulary.added)
            settings["trainable_token_indices"] = {name.rpartition(".")[2]: added for name in rows}
        if scored is not None:
            settings |= {"task_type": "SEQ_CLS", "modules_to_save": [SCORE]}
        (temp / CONFIG).write_bytes(orjson.dumps(settings, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS))
        renderer.save_tokenizer(temp)
    return checkpoint.verify(folder)
