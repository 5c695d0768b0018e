"""Weights → a transformers model in memory. Local files only, safetensors or GGUF only, no code from a model folder.

A GGUF is dequantised straight into the model (about 1 s for 135M parameters): transformers' own GGUF loader takes many
times as long, and leaves a model that refuses to be saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.core.errors import CheckpointError, ConfigError
from gristmill.models import architecture, checkpoint
from gristmill.models.gguf_file import read_gguf
from gristmill.models.weights import Weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def load_model(weights: Weights, *, dtype: torch.dtype | str = "float32") -> PreTrainedModel:
    """The model in evaluation mode, on the CPU, in `dtype`. A checkpoint folder is verified first."""
    torch = _torch()
    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    with _quiet():
        model = _from_gguf(weights, kind) if weights.form == "gguf" else _from_folder(weights, kind)
    model.eval()
    return model


def _from_gguf(weights: Weights, dtype: torch.dtype) -> PreTrainedModel:
    import torch
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    file = read_gguf(weights.path)
    config = AutoConfig.for_model(**architecture.hf_config(file))
    data = np.memmap(weights.path, dtype=np.uint8, mode="r")
    state = {
        architecture.hf_name(name): torch.from_numpy(architecture.read_tensor(file, name, data)).to(dtype)
        for name in file.tensors
    }
    return _load(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], None, config=config, state_dict=state, dtype=dtype)


def _from_folder(weights: Weights, dtype: torch.dtype) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    if weights.form == "checkpoint":
        checkpoint.verify(weights.path)
    safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    try:
        return _load(AutoModelForCausalLM, str(weights.path), dtype=dtype, **safe)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"cannot load {weights.path}: {error}", "Get the model's files again.") from error


def _load(maker: Any, folder: str | None, **how: Any) -> PreTrainedModel:
    model, info = maker.from_pretrained(folder, output_loading_info=True, **how)
    wrong = sorted(info["missing_keys"]) + sorted(info["unexpected_keys"]) + sorted(map(str, info["mismatched_keys"]))
    if wrong:
        names = ", ".join(wrong[:5])
        raise CheckpointError(f"the weights do not fit the model's config: {names}", "Get the model's files again.")
    loaded: PreTrainedModel = model
    return loaded


@contextmanager
def _quiet() -> Iterator[None]:
    """Transformers prints bars and advice; what matters of it is an error here."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _torch() -> Any:
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"training needs {error.name}", "Run: pip install 'gristmill[train]'") from error
    return torch
