"""A tiny random model with a real byte-level tokenizer, of any architecture, as an HF folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.train.conftest import make_model_folder

from gristmill.models.weights import Weights, at_folder


def tiny_weights(folder: Path, *, tied: bool = True, kind: str = "llama", **changes: Any) -> Weights:
    """The training tests' tiny model; another `kind` or untied: the same tokenizer over other weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    make_model_folder(folder)
    sizes = {"vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    ends = {"eos_token_id": 2, "bos_token_id": 1, "pad_token_id": 0, "initializer_range": 0.1}
    shards = str(changes.pop("shards", "5GB"))
    config = AutoConfig.for_model(kind, **{**sizes, **heads, **ends, "tie_word_embeddings": tied, **changes})
    torch.manual_seed(1)
    if shards != "5GB":
        (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_config(config).save_pretrained(folder, max_shard_size=shards)
    return at_folder(folder)
