"""A model's tokenizer and chat template, from a GGUF's metadata or from an HF folder. No torch, no transformers.

Byte-level BPE from a GGUF is rebuilt with the `tokenizers` library, so that both forms go through the same code. What a
GGUF does not say (how text is cut before merging) it names: `tokenizer.ggml.pre`. Patterns are those of llama.cpp's
llama-vocab.cpp and of the models' own tokenizer.json; a name that is not known here is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from gristmill.core.errors import ConfigError, InputError
from gristmill.models.gguf_file import GgufFile, read_gguf
from gristmill.models.weights import Weights

_CONTROL, _USER_DEFINED = 3, 4  # ggml token types
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = _WORDS % r"\p{N}{1,3}"
_QWEN2 = _WORDS % r"\p{N}"
_PATTERNS = {"llama-bpe": _LLAMA3, "llama3": _LLAMA3, "llama-v3": _LLAMA3, "qwen2": _QWEN2, "deepseek-r1-qwen": _QWEN2}
_DIGITS_THEN_GPT2 = ("smollm", "starcoder", "refact", "command-r")
_GPT2 = ("gpt-2", "phi-2")
SUPPORTED = (*_PATTERNS, *_DIGITS_THEN_GPT2, *_GPT2)
BOUNDLESS = 1 << 40
"""The context of a model whose files state no limit: its positions are computed, or it has none."""
_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len")
"""What config.json calls the context: Llama and most others; GPT-2, GPT-J and CodeGen; the first GPT; OLMo; MPT."""
_LOOKS_CONTROL = re.compile("<[|\uff5c].*[|\uff5c]>", re.DOTALL)


@dataclass(frozen=True)
class ControlToken:
    """A token that structures a conversation. Some eat the white space beside them."""

    text: str
    id: int
    eats_left: bool = False
    eats_right: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """What the renderer works with. The tokenizer adds nothing by itself and reads special tokens as plain text."""

    tokenizer: Tokenizer
    template: str
    control: dict[str, ControlToken]  # by text
    eos: int
    ends: frozenset[int]  # ids at which generation stops, as the model's files say
    bos: int | None  # put before plain text, where the model was trained so
    context: int  # tokens that the model reads, or BOUNDLESS
    names: dict[str, str] = field(default_factory=dict)  # bos_token, eos_token, ...: what templates may ask for
    files: tuple[Path, ...] = ()  # an HF folder's own tokenizer files
    added: tuple[int, ...] = ()  # ids that `extended` gave: tokens no weights know yet

    def extended(self, tokens: Sequence[str], *, template: str | None = None) -> Vocabulary:
        """The vocabulary with more tokens, which take the next ids, and perhaps another chat template.

        A token that looks like `<|name|>` is a control token: only a template can write it. Any other is a word: it is
        one token wherever a text holds it.
        """
        known = [t for t in tokens if self.tokenizer.token_to_id(t) is not None]
        if known or len(set(tokens)) < len(tokens) or not all(t.strip() for t in tokens):
            raise ConfigError(
                f"new_tokens names what is a token already, or twice, or nothing: {', '.join(known or tokens)}",
                "List each token once, and only those that the model does not have.",
            )
        tokenizer = Tokenizer.from_str(self.tokenizer.to_str())
        special = {t: bool(_LOOKS_CONTROL.fullmatch(t)) for t in tokens}
        tokenizer.add_tokens([AddedToken(t, special=special[t], normalized=False) for t in tokens])
        tokenizer.encode_special_tokens = True
        ids = {t: tokenizer.get_vocab()[t] for t in tokens}
        return replace(
            self,
            tokenizer=tokenizer,
            template=self.template if template is None else template,
            control=self.control | {t: ControlToken(t, at) for t, at in ids.items() if special[t]},
            files=(),
            added=(*self.added, *ids.values()),
        )


def load_vocabulary(weights: Weights) -> Vocabulary:
    return _from_gguf(read_gguf(weights.path)) if weights.form == "gguf" else _from_folder(weights.path)


# ---- GGUF ----


def _from_gguf(file: GgufFile) -> Vocabulary:
    tokens, types = file.get("tokenizer.ggml.tokens"), file.get("tokenizer.ggml.token_type")
    if file.get("tokenizer.ggml.model") != "gpt2" or not tokens or not types:
        raise ConfigError(
            f"{file.path.name}: its tokenizer ({file.get('tokenizer.ggml.model')}) is not byte-level BPE",
            "Give the model as an HF folder with a tokenizer.json.",
        )
    tokenizer = _byte_level(file, tokens)
    added = {
        token: AddedToken(token, special=kind == _CONTROL, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind in (_CONTROL, _USER_DEFINED)
    }
    tokenizer.add_tokens(list(added.values()))
    eos = file.get("tokenizer.ggml.eos_token_id")
    if eos is None:
        raise ConfigError(f"{file.path.name} does not say which token ends a text", "Use another GGUF of this model.")
    tokenizer.encode_special_tokens = True
    ids = {name: file.get(f"tokenizer.ggml.{key}_token_id") for name, key in _GGUF_NAMES.items()}
    ends = {eos, file.get("tokenizer.ggml.eot_token_id", eos)}
    return Vocabulary(
        tokenizer=tokenizer,
        template=file.get("tokenizer.chat_template", ""),
        control={t: ControlToken(t, at) for at, t in enumerate(tokens) if t in added and added[t].special},
        eos=eos,
        ends=frozenset(ends),
        bos=file.get("tokenizer.ggml.bos_token_id") if file.get("tokenizer.ggml.add_bos_token") else None,
        context=file.arch("context_length") or BOUNDLESS,
        names={name: tokens[at] for name, at in ids.items() if at is not None},
    )


_GGUF_NAMES = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


def _byte_level(file: GgufFile, tokens: list[str]) -> Tokenizer:
    pre = file.get("tokenizer.ggml.pre", "")
    merges = [tuple(merge.split(" ", 1)) for merge in file.get("tokenizer.ggml.merges", [])]
    vocabulary = {token: at for at, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=_PATTERNS.get(pre) is _LLAMA3))
    tokenizer.decoder = decoders.ByteLevel()
    if pre not in SUPPORTED:
        raise ConfigError(
            f"{file.path.name}: its pre-tokenizer ({pre or 'none named'}) is not known",
            f"Known: {', '.join(SUPPORTED)}. Or give the model as an HF folder with a tokenizer.json.",
        )
    set_cutter(tokenizer, pre)
    return tokenizer


def set_cutter(tokenizer: Tokenizer, pre: str) -> None:
    """How text is normalised and cut before merging, by llama.cpp's name for it (one of `SUPPORTED`)."""
    tokenizer.pre_tokenizer = _cutter(pre)
    if _PATTERNS.get(pre) is _QWEN2:
        tokenizer.normalizer = normalizers.NFC()


def _cutter(pre: str) -> Any:
    if pre in _PATTERNS:
        split = pre_tokenizers.Split(Regex(_PATTERNS[pre]), "isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pre in _GPT2:
        return words
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])


def pre_tokenizer_name(tokenizer: Tokenizer) -> str | None:
    """llama.cpp's name for how a tokenizer cuts text; None where it is none of those known here."""

    def told(cutter: Any) -> Any:
        probe = Tokenizer(models.BPE())
        probe.pre_tokenizer = cutter
        return _without_defaults(orjson.loads(probe.to_str())["pre_tokenizer"])

    whole = orjson.loads(tokenizer.to_str())
    normalizer = (whole["normalizer"] or {}).get("type")
    if whole["model"]["type"] != "BPE" or whole["model"].get("byte_fallback"):
        return None
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2"):
        fits = normalizer == ("NFC" if pre == "qwen2" else None)
        if fits and told(_cutter(pre)) == _without_defaults(whole["pre_tokenizer"]):
            return pre
    return None


def _without_defaults(value: Any) -> Any:
    """A pre-tokenizer's description without `trim_offsets`, which changes offsets alone, never tokens."""
    if isinstance(value, dict):
        return {key: _without_defaults(inner) for key, inner in value.items() if key != "trim_offsets"}
    return [_without_defaults(inner) for inner in value] if isinstance(value, list) else value


# ---- HF folder ----

_FOLDER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
    "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model",
)  # fmt: skip


def _from_folder(folder: Path) -> Vocabulary:
    if not (folder / "tokenizer.json").is_file():
        raise ConfigError(f"{folder} has no tokenizer.json", "Save the model's fast tokenizer beside its weights.")
    tokenizer = Tokenizer.from_str((folder / "tokenizer.json").read_text("utf-8"))
    settings, config = _json(folder / "tokenizer_config.json"), _json(folder / "config.json")
    names = {**_named_tokens(_json(folder / "special_tokens_map.json")), **_named_tokens(settings)}
    control = control_of(tokenizer)
    start = tokenizer.encode("").ids[:1]
    tokenizer.post_processor = None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    eos = tokenizer.token_to_id(names.get("eos_token", ""))
    if eos is None:
        raise ConfigError(f"{folder} does not say which token ends a text", "Set eos_token in tokenizer_config.json.")
    stops = _json(folder / "generation_config.json").get("eos_token_id") or []
    return Vocabulary(
        tokenizer=tokenizer,
        template=_folder_template(folder, settings),
        control=control,
        eos=eos,
        ends=frozenset({eos, *(stops if isinstance(stops, list) else [stops])}),
        bos=start[0] if start and start[0] != eos else None,
        context=_context(config | (config.get("text_config") or {})),
        names=names,
        files=tuple(folder / name for name in _FOLDER_FILES if (folder / name).is_file()),
    )


def _context(config: dict[str, Any]) -> int:
    return next((int(config[name]) for name in _LENGTHS if config.get(name)), BOUNDLESS)


def control_of(tokenizer: Tokenizer) -> dict[str, ControlToken]:
    """The control tokens among those added beside the merged ones."""
    return {
        token.content: ControlToken(token.content, at, token.lstrip, token.rstrip)
        for at, token in tokenizer.get_added_tokens_decoder().items()
        if token.special or _LOOKS_CONTROL.fullmatch(token.content)
    }


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(orjson.loads(path.read_bytes())) if path.is_file() else {}
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}", "Get the model again.") from error


def _named_tokens(settings: dict[str, Any]) -> dict[str, str]:
    """bos_token and the like: written as plain text, or as the token's whole description."""
    found = {k: v["content"] if isinstance(v, dict) else v for k, v in settings.items() if k.endswith("_token")}
    return {k: v for k, v in found.items() if isinstance(v, str)}


def _folder_template(folder: Path, settings: dict[str, Any]) -> str:
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text("utf-8")
    template = settings.get("chat_template") or ""
    if isinstance(template, list):  # several, by name
        template = next((t["template"] for t in template if t["name"] == "default"), "")
    return str(template)


def save_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    """Write the tokenizer so that transformers' AutoTokenizer loads the folder and makes the same ids."""
    if vocabulary.files:
        for file in vocabulary.files:
            (folder / file.name).write_bytes(file.read_bytes())
        return
    tokenizer = Tokenizer.from_str(vocabulary.tokenizer.to_str())
    if vocabulary.bos is not None:
        first = str(vocabulary.tokenizer.id_to_token(vocabulary.bos))
        named = [(first, vocabulary.bos)]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{first} $A", special_tokens=named)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **({"model_max_length": vocabulary.context} if vocabulary.context < BOUNDLESS else {}),
        "clean_up_tokenization_spaces": False,
        **vocabulary.names,
    }
    if vocabulary.template:
        (folder / "chat_template.jinja").write_text(vocabulary.template, "utf-8")
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps(settings, option=orjson.OPT_INDENT_2))
    (folder / "special_tokens_map.json").write_bytes(orjson.dumps(vocabulary.names, option=orjson.OPT_INDENT_2))


def save_plain_vocabulary(vocabulary: Vocabulary, folder: Path) -> None:
    """Write `vocab.json` and `merges.txt` too, for tools that know no tokenizer.json; byte-level BPE alone has them."""
    if isinstance(vocabulary.tokenizer.model, models.BPE):
        vocabulary.tokenizer.model.save(str(folder))
