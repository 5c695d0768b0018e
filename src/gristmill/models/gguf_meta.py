"""What a GGUF says of a model before its tensors: architecture, sizes, tokenizer, template.

A model that came from a GGUF keeps that file's values, with the tokens and the template that training added. A folder
of a mapped architecture is described from its config and tokenizer. Keys and types are those of ggml's docs/gguf.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from gristmill.core.errors import ConfigError
from gristmill.models import architecture
from gristmill.models.gguf_file import GgufFile, Kind, TensorPlace, Value
from gristmill.models.renderer import Renderer
from gristmill.models.tokenizer import Vocabulary, pre_tokenizer_name
from gristmill.models.weights import Weights

_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_TOKENS, _TYPES = "tokenizer.ggml.tokens", "tokenizer.ggml.token_type"


def of_descendant(origin: GgufFile, vocabulary: Vocabulary, shapes: Mapping[str, tuple[int, ...]]) -> GgufFile:
    """The origin's description with the model's own tokens, template and matrix sizes. `shapes`: those of the model's
    tensors, by transformers' names."""
    architecture.check_family(origin)
    tensors = {
        name: replace(place, shape=tuple(reversed(shapes.get(architecture.hf_name(name), place.shape[::-1]))))
        for name, place in origin.tensors.items()
    }
    values = dict(origin.values)
    tokens, kinds = list(values[_TOKENS].value), list(values[_TYPES].value)
    rows = tensors["token_embd.weight"].shape[1]
    names, types = _listed(vocabulary, rows)
    for at in range(rows):
        if at >= len(tokens):
            tokens.append(names[at])
            kinds.append(types[at])
        elif names[at] != tokens[at] and types[at] != _UNUSED:
            tokens[at], kinds[at] = names[at], types[at]
    values[_TOKENS] = replace(values[_TOKENS], value=tokens)
    values[_TYPES] = replace(values[_TYPES], value=kinds)
    if vocabulary.template != origin.get("tokenizer.chat_template", ""):
        values["tokenizer.chat_template"] = Value(Kind.STRING, vocabulary.template)
        values |= _end_of_turn(vocabulary)
    if f"{origin.architecture}.vocab_size" in values:
        values[f"{origin.architecture}.vocab_size"] = Value(Kind.UINT32, rows)
    return replace(origin, values=values, tensors=tensors)


def of_folder(weights: Weights, vocabulary: Vocabulary, shapes: Mapping[str, tuple[int, ...]]) -> GgufFile | None:
    """A folder as a GGUF describes it; None where its architecture or its tokenizer is not mapped here."""
    config = orjson.loads((weights.path / "config.json").read_bytes())
    family = architecture.FAMILY_OF.get(config.get("model_type", ""))
    rope = {**config, **(config.get("rope_scaling") or {}), **(config.get("rope_parameters") or {})}
    plain = rope.get("rope_type", rope.get("type", "default")) in ("default", None) and not config.get("sliding_window")
    pre = pre_tokenizer_name(vocabulary.tokenizer)
    if family is None or pre is None or not plain or not architecture.maps(family, shapes):
        return None
    tensors = {
        name: TensorPlace(name, tuple(reversed(shape)), 0, 0)
        for hf, shape in shapes.items()
        if (name := architecture.gguf_name(hf)) != "output.weight" or not config.get("tie_word_embeddings")
    }
    values = {"general.architecture": Value(Kind.STRING, family), "general.quantization_version": _int(2)}
    values |= {f"{family}.{key}": value for key, value in _sizes(config, rope).items()}
    values |= _tokenizer(vocabulary, pre, tensors["token_embd.weight"].shape[1])
    return GgufFile(weights.path, values, tensors)


def _sizes(config: dict[str, Any], rope: dict[str, Any]) -> dict[str, Value]:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    return {
        "block_count": _int(config["num_hidden_layers"]),
        "context_length": _int(config["max_position_embeddings"]),
        "embedding_length": _int(config["hidden_size"]),
        "feed_forward_length": _int(config["intermediate_size"]),
        "attention.head_count": _int(heads),
        "attention.head_count_kv": _int(config.get("num_key_value_heads") or heads),
        "attention.key_length": _int(width),
        "attention.value_length": _int(width),
        "attention.layer_norm_rms_epsilon": Value(Kind.FLOAT32, config["rms_norm_eps"]),
        "rope.freq_base": Value(Kind.FLOAT32, float(rope.get("rope_theta", 10000.0))),
        "rope.dimension_count": _int(width),
        "vocab_size": _int(config["vocab_size"]),
    }


def _tokenizer(vocabulary: Vocabulary, pre: str, rows: int) -> dict[str, Value]:
    tokens, kinds = _listed(vocabulary, rows)
    merges = orjson.loads(vocabulary.tokenizer.to_str())["model"]["merges"]
    found = {name: vocabulary.tokenizer.token_to_id(token) for name, token in vocabulary.names.items()}
    keys = {"bos_token": "bos", "unk_token": "unknown", "pad_token": "padding"}
    return {
        "tokenizer.ggml.model": Value(Kind.STRING, "gpt2"),
        "tokenizer.ggml.pre": Value(Kind.STRING, pre),
        _TOKENS: Value(Kind.ARRAY, tokens, Kind.STRING),
        _TYPES: Value(Kind.ARRAY, kinds, Kind.INT32),
        "tokenizer.ggml.merges": Value(Kind.ARRAY, [" ".join(pair) for pair in merges], Kind.STRING),
        "tokenizer.ggml.eos_token_id": _int(vocabulary.eos),
        **{f"tokenizer.ggml.{key}_token_id": _int(i) for n, key in keys.items() if (i := found.get(n)) is not None},
        **({"tokenizer.ggml.bos_token_id": _int(vocabulary.bos)} if vocabulary.bos is not None else {}),
        "tokenizer.ggml.add_bos_token": Value(Kind.BOOL, vocabulary.bos is not None),
        **({"tokenizer.chat_template": Value(Kind.STRING, vocabulary.template)} if vocabulary.template else {}),
        **_end_of_turn(vocabulary),
    }


def _end_of_turn(vocabulary: Vocabulary) -> dict[str, Value]:
    """The token besides eos at which llama.cpp stops; it has room for one, so of several the template's own."""
    others = vocabulary.ends - {vocabulary.eos}
    end = Renderer(vocabulary).turn_end if len(others) > 1 else next(iter(others), None)
    return {} if end in (None, vocabulary.eos) else {"tokenizer.ggml.eot_token_id": _int(end)}


def _listed(vocabulary: Vocabulary, rows: int) -> tuple[list[str], list[int]]:
    """Every row's token and its type; rows without a token are padding."""
    names = [f"[PAD{at}]" for at in range(rows)]
    kinds = [_UNUSED] * rows
    for token, at in vocabulary.tokenizer.get_vocab(with_added_tokens=True).items():
        if at >= rows:
            raise ConfigError(f"the token {token} has no row in the model's embedding", "Train with it in new_tokens.")
        names[at], kinds[at] = token, _NORMAL
    for at in vocabulary.tokenizer.get_added_tokens_decoder():
        kinds[at] = _CONTROL if names[at] in vocabulary.control else _USER_DEFINED
    return names, kinds


def _int(value: Any) -> Value:
    return Value(Kind.UINT32, int(value))
