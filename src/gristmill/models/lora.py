"""Low-rank adapters on a model's linear layers. The base stays frozen; adapters are float32 on any base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from gristmill.core.errors import ConfigError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


SCORE = "score"
"""The score head's name in a model that has one."""


class LoraConfig(BaseModel):
    """Size and place of the adapters. `alpha / r` scales what they add."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    r: int = Field(16, ge=1, le=1024, description="Rank of each adapter")
    alpha: int = Field(32, gt=0, description="What the adapter adds is scaled by alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapter")
    variant: Literal["lora", "rslora", "dora"] = Field(
        "lora",
        description="rslora: scaled by alpha / √r; dora: direction and length apart, slower (peft's own forward)",
    )
    targets: Literal["all-linear"] | list[str] = Field(
        "all-linear", description="Which linear layers: all but the output head, or names such as q_proj"
    )
    base: Literal["bf16", "nf4"] = Field(
        "bf16", description="The frozen weights: in the stage's dtype, or in 4 bits (QLoRA; needs bitsandbytes)"
    )


def attach(model: PreTrainedModel, config: LoraConfig) -> PeftModel:
    """The model with fresh adapters, the only trainable parameters besides a score head, all float32. Draws from
    torch's generator."""
    import warnings

    import torch
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model
    from transformers.pytorch_utils import Conv1D

    from gristmill.models.lora_linear import fuse

    heads = {id(model.get_output_embeddings()), id(getattr(model, SCORE, None))}
    layers = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear | Conv1D)}
    linear = {name.rpartition(".")[2] for name, m in layers.items() if id(m) not in heads}
    unknown = [] if config.targets == "all-linear" else [t for t in config.targets if t not in linear]
    if unknown or not config.targets:
        raise ConfigError(
            f"lora.targets names what takes no adapter in this model: {', '.join(unknown) or 'the list is empty'}",
            f"Its linear layers, but for its head, are: {', '.join(sorted(linear))}.",
        )
    scored = hasattr(model, SCORE)
    peft = PeftConfig(
        r=config.r, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=config.targets,
        use_rslora=config.variant == "rslora", use_dora=config.variant == "dora",
        task_type=None if scored else "CAUSAL_LM", exclude_modules=[SCORE] if scored else None, bias="none",
    )  # fmt: skip
    with warnings.catch_warnings():  # peft 0.21 reads a property that transformers 5.23 has renamed
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to", UserWarning)  # it sees how GPT-2's layers lie
        adapted = get_peft_model(model, peft, autocast_adapter_dtype=True)
    fuse(adapted)
    if scored:  # a score head begins at nothing, and is small: it is trained whole
        adapted.get_base_model().score.float().requires_grad_(True)
    return adapted
