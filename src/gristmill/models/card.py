"""The model card, README.md of every export: what the model is, from what and how it was made, how well it does, how it
is loaded. YAML front matter as model hubs read it. Nothing is guessed: what is not known is left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass(frozen=True)
class Arm:
    """How one candidate did in an exam, with the bounds of its 95 % interval."""

    name: str
    right: int
    of: int
    accuracy: float
    low: float
    high: float


@dataclass(frozen=True)
class ModelCard:
    """All that the card says. Hashes are sha256."""

    title: str
    base: str  # its name, for people
    base_hub: str  # OWNER/NAME at a hub; empty where there is none
    base_sha256: str
    licence: str  # of the base; empty where it is not known
    languages: Sequence[str]
    run: Mapping[str, str]  # id, recipe, version, ...
    documents: Mapping[str, str]  # path -> hash
    stages: Sequence[tuple[str, str, int]]  # name, kind, records given
    samples: Mapping[str, int]  # form/kind -> count
    writers: Mapping[tuple[str, str], int]  # (prompt, model) -> samples made
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    exams: Mapping[str, Sequence[Arm]]
    hashes: Mapping[str, str]  # what else names the weights: the checkpoint's manifest, ...
    proof: str  # what the export gate found
    loading: str  # Markdown: how this very format is loaded
    form: str  # hf, gguf, lora, lora-gguf, tokenizer
    notes: Sequence[str] = field(default_factory=tuple)


_LIBRARY = {"hf": "transformers", "lora": "peft", "tokenizer": "transformers"}
_RELATION = {"hf": "finetune", "gguf": "quantized", "lora": "adapter", "lora-gguf": "adapter"}


def write_card(card: ModelCard) -> str:
    parts = [
        f"---\n{yaml.safe_dump(_front(card), sort_keys=False, allow_unicode=True)}---",
        f"# {card.title}",
        _intro(card),
        "## How to load it\n\n" + card.loading.strip(),
        *card.notes,
        _section("Exam", _exams(card)),
        _section("Training", [*_values("metric", card.metrics), "", *_values("setting", card.settings)]),
        _section("Data", _data(card)),
        _section("Documents", _table(("document", "sha256"), card.documents.items())),
        _section("Lineage", _values("what", {**card.run, **card.hashes})),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front(card: ModelCard) -> dict[str, Any]:
    front: dict[str, Any] = {
        "library_name": _LIBRARY.get(card.form),
        "pipeline_tag": None if card.form == "tokenizer" else "text-generation",
        "language": list(card.languages),
        "license": card.licence.lower(),
        "base_model": card.base_hub,
        "base_model_relation": _RELATION.get(card.form) if card.base_hub else None,
        "tags": ["gristmill", *(["gguf"] if "gguf" in card.form else []), *(["lora"] if "lora" in card.form else [])],
    }
    return {key: value for key, value in front.items() if value}


def _intro(card: ModelCard) -> str:
    base = f" from {card.base}" if card.base else ""
    licence = f" The base's licence: {card.licence}." if card.licence else ""
    proof = f"\n\nBefore it was written: {card.proof}." if card.proof else ""
    return f"Made by Gristmill{base} and the documents below.{licence}{proof}"


def _exams(card: ModelCard) -> list[str]:
    lines: list[str] = []
    for name, arms in card.exams.items():
        rows = [(a.name, f"{a.right} of {a.of}", f"{a.accuracy:.1%}", f"{a.low:.1%} to {a.high:.1%}") for a in arms]
        lines += [f"`{name}`:", "", *_table(("who", "right", "accuracy", "95 % interval"), rows), ""]
    return lines


def _data(card: ModelCard) -> list[str]:
    lines = _table(("stage", "kind", "records"), card.stages)
    if card.samples:
        lines += ["", *_table(("samples trained on", "count"), card.samples.items())]
    if card.writers:
        rows = [(prompt, model, count) for (prompt, model), count in card.writers.items()]
        lines += ["", *_table(("prompt", "model", "samples"), rows)]
    return lines


def _section(title: str, lines: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(lines).strip() if lines else ""


def _values(what: str, values: Mapping[str, Any]) -> list[str]:
    return _table((what, "value"), [(name, _shown(value)) for name, value in values.items()])


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(headers: Sequence[str], rows: Iterable[Iterable[Any]]) -> list[str]:
    """A Markdown table; empty without rows."""
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    if not cells:
        return []
    return [f"| {' | '.join(row)} |" for row in (headers, ["---"] * len(headers), *cells)]
