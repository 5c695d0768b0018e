"""Weights → a transformers model in memory. Local files only, safetensors or GGUF only, no code from a model folder.

Any causal language model that transformers knows: one file or many, tied head or not. A GGUF is dequantised straight
into the model (about 1 s for 135M parameters): transformers' own GGUF loader takes many times as long, and leaves a
model that refuses to be saved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import orjson

from gristmill.core.errors import CheckpointError, ConfigError
from gristmill.models import architecture, checkpoint
from gristmill.models.gguf_file import read_gguf
from gristmill.models.weights import Weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Quantized = Literal["nf4"]
SCORE = "score.weight"
"""The score head's tensor, by transformers' name: [labels, hidden]."""


def load_model(
    weights: Weights,
    *,
    dtype: torch.dtype | str = "float32",
    device: str = "cpu",
    quantize: Quantized | None = None,
    head: Sequence[str] | None = None,
) -> PreTrainedModel:
    """The model in evaluation mode, in `dtype` on `device`. A checkpoint folder is verified first.

    `quantize` keeps the linear layers in 4 bits (QLoRA's base; `dtype` is what they are multiplied in). `head` puts a
    score head with these labels in place of the token head; a model that was saved with one is loaded with it.
    """
    torch = _torch()
    how: dict[str, Any] = {"dtype": getattr(torch, dtype) if isinstance(dtype, str) else dtype}
    if quantize is not None:
        how |= {"quantization_config": _four_bits(how["dtype"]), "device_map": {"": device}}
    if head is not None:
        how |= {"num_labels": len(head), "id2label": dict(enumerate(head))}
    with _quiet():
        model = _from_gguf(weights, how) if weights.form == "gguf" else _from_folder(weights, how)
    model.eval()
    for layer in model.modules():  # bitsandbytes' packed form for CPUs rounds scales, and fails at some widths
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            setattr(layer, "support_avx512bf16_for_cpu", False)  # noqa: B010  (not a module's or a tensor's name)
    return model if quantize else model.to(device)  # type: ignore[arg-type]


def from_state(
    kind: type[PreTrainedModel], config: Any, state: Mapping[str, torch.Tensor], *, dtype: str
) -> PreTrainedModel:
    """A model of weights in memory, made the way that files are loaded."""
    with _quiet():
        how = {"config": config, "state_dict": dict(state), "dtype": getattr(_torch(), dtype)}
        model = _load(kind, None, scored=False, **how)
    model.eval()
    return model


def _from_gguf(weights: Weights, how: dict[str, Any]) -> PreTrainedModel:
    import torch
    from transformers import AutoConfig
    from transformers.models.auto import modeling_auto

    labels = {key: how.pop(key) for key in ("num_labels", "id2label") if key in how}
    makers: Any = (
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if labels else modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING
    )
    file = read_gguf(weights.path)
    config = AutoConfig.for_model(**architecture.hf_config(file), **labels)
    data = np.memmap(weights.path, dtype=np.uint8, mode="r")
    state = {
        architecture.hf_name(name): torch.from_numpy(architecture.read_tensor(file, name, data)).to(how["dtype"])
        for name in file.tensors
        if not (labels and name.startswith("output."))
    }
    return _load(makers[type(config)], None, scored=bool(labels), config=config, state_dict=state, **how)


def _from_folder(weights: Weights, how: dict[str, Any]) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if weights.form == "checkpoint":
        checkpoint.verify(weights.path)
    scored = "num_labels" in how or has_score_head(weights)
    maker = AutoModelForSequenceClassification if scored else AutoModelForCausalLM
    safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
    try:
        return _load(maker, str(weights.path), scored="num_labels" in how, **safe, **how)
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"cannot load {weights.path}: {error}", "Get the model's files again.") from error


def has_score_head(weights: Weights) -> bool:
    """Whether a folder holds a model with a score head in place of its token head."""
    if weights.form == "gguf":
        return False
    stated = orjson.loads((weights.path / "config.json").read_bytes()).get("architectures") or [""]
    return str(stated[0]).endswith("ForSequenceClassification")


def score_labels(weights: Weights) -> tuple[str, ...]:
    """What the scores of a folder's score head stand for; empty where it has a token head."""
    if not has_score_head(weights):
        return ()
    named = orjson.loads((weights.path / "config.json").read_bytes())["id2label"]
    return tuple(named[str(number)] for number in range(len(named)))


def require_head(weights: Weights, labels: Sequence[str]) -> None:
    """Refuse to train a model with a score head for anything but what its scores stand for."""
    stated = score_labels(weights)
    if stated and stated != tuple(labels):
        raise ConfigError(
            f"the model gives scores for {', '.join(stated)}, not " + (", ".join(labels) or "the next token"),
            "Begin with the model that it was made of, or train what it has a head for.",
        )


def require_text(weights: Weights) -> None:
    """Refuse a model with a score head where one is needed that writes."""
    if stated := score_labels(weights):
        raise ConfigError(
            f"this model writes no text: it gives scores for {', '.join(stated)}",
            "Load its folder with transformers' AutoModelForSequenceClassification; export it with --format hf.",
        )


def _load(maker: Any, folder: str | None, *, scored: bool, **how: Any) -> PreTrainedModel:
    """`scored`: a score head may be new, and a token head may be left behind."""
    model, info = maker.from_pretrained(folder, output_loading_info=True, **how)
    fresh, left = ({SCORE}, {"lm_head.weight"}) if scored else (set(), set())
    missing, unexpected = set(info["missing_keys"]) - fresh, set(info["unexpected_keys"]) - left
    wrong = sorted(missing) + sorted(unexpected) + sorted(map(str, info["mismatched_keys"]))
    if wrong:
        names = ", ".join(wrong[:5])
        raise CheckpointError(f"the weights do not fit the model's config: {names}", "Get the model's files again.")
    loaded: PreTrainedModel = model
    return loaded


def _four_bits(dtype: torch.dtype) -> Any:
    """NF4 with doubly quantised scales: Dettmers et al. 2023, QLoRA, sections 2 and 3."""
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise ConfigError("a base in 4 bits needs bitsandbytes", "Run: pip install bitsandbytes, or set lora.base bf16")
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


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
