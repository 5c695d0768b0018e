"""What the recipes of several pipelines have in common: models, documents, chunks."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from gristmill.runs.from_augmentoolkit.config import Config, plain
from gristmill.runs.recipe import PLACEHOLDER

Stages = dict[str, dict[str, Any]]
Parts = tuple[dict[str, Any], Stages]
"""Models and stages of a recipe."""

REPEAT = "repeat"
"""A builder's word for the recipe's `repeat`, beside its models."""

KEY = "env:LLM_KEY"
NO_PRICE = "a price is two numbers, of input and of output: models.….price"
_NAMES = re.compile(r"\{(context(?:_lowercase|_uppercase)?)\}")
_DATA = re.compile(r"\s*\{data\}\s*")


def model(config: Config, role: str, size: str, *, prefix: str = "") -> dict[str, Any]:
    """One of the two models of a pipeline. Keys are never copied: they belong into the environment."""
    spec: dict[str, Any] = {"provider": "openai"}
    where = f"models.{role}"
    url = plain(config.take(f"{prefix}{size}_base_url", f"{where}.base_url"))
    spec["base_url"] = url or "env:LLM_URL"
    for key in (f"{prefix}{size}_api_key", f"{size}_api_keys"):
        config.take(key, f"{where}.api_key: {KEY}; the key itself was not copied")
    spec["api_key"] = KEY
    spec["model"] = plain(config.take(f"{prefix}{size}_model", f"{where}.model")) or PLACEHOLDER
    price = _price(config, where, size, prefix)
    if price:
        spec["price"] = price
    if (width := config.take("concurrency_limit", "models.….concurrency")) is not None:
        spec["concurrency"] = width
    mode = config.take(f"{prefix}{size}_mode", f"{where}.provider")
    if mode not in (None, "api"):
        config.refuse(f"{prefix}{size}_mode", f"mode {mode}: reach it at an OpenAI-compatible address")
    return spec


def _price(config: Config, where: str, size: str, prefix: str) -> dict[str, float]:
    """Both sides of a price, or none: half of one says nothing of what a call costs."""
    found: dict[str, float] = {}
    named: list[str] = []
    for side in ("input", "output"):
        for name in (f"{prefix}cost_per_million_{size}_{side}", f"{prefix}cost_{size}_{side}"):
            value = config.take(name, f"{where}.price.{side}")
            named += [name] if name in config.values else []
            if (price := _dollars(value)) is not None:
                found[side] = price
            elif value is not None:
                config.refuse(name, NO_PRICE)
    if len(found) == 2:
        return found
    for name in named:
        config.refuse(name, NO_PRICE)
    return {}


def _dollars(value: Any) -> float | None:
    """A number, quoted or not."""
    try:
        price = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return price if math.isfinite(price) else None


def documents(config: Config, project: Path, *, default: int, size: str = "chunk_size") -> Stages:
    """Documents, chunks, and some of the chunks where a subset is asked for."""
    stages: Stages = {"read": {"kind": "ingest.read", "paths": folders(config, project)}}
    return stages | chunks(config, default=default, size=size)


def chunks(config: Config, *, default: int, size: str = "chunk_size") -> Stages:
    tokens = config.take(size, "stages.chunks.tokens", default)
    stages: Stages = {"chunks": {"kind": "ingest.chunk", "tokens": tokens}}
    if config.take("use_subset", "stages.subset") and (count := config.take("subset_size", "stages.subset.chunks")):
        stages["subset"] = {"kind": "ingest.subset", "chunks": count}
    else:
        config.leave("subset_size", "use_subset is off")
    return stages


def judged(config: Config, models: dict[str, Any], *, prefix: str = "", skip: str = "skip_filter_chunks") -> Stages:
    """The small model says of each chunk whether there is something in it to teach, before anything is paid for it."""
    if config.take(skip, "stages.suitable", False):
        return {}
    role = added(config, models, "reader", model(config, "reader", "small", prefix=prefix))
    return {"suitable": {"kind": "curate.judge_chunks", "model": role, "votes": 1, "temperature": 0.0}}


def added(config: Config, models: dict[str, Any], role: str, spec: dict[str, Any]) -> str:
    """A role of the recipe; one that is another's twin is that other."""
    twin = next((other for other, known in models.items() if known == spec), None)
    if twin is None:
        models[role] = spec
    for place, to in config.carried.items():
        config.carried[place] = to.replace(f"models.{role}.", f"models.{twin or role}.")
    return twin or role


def folders(config: Config, project: Path) -> list[str]:
    given = config.texts("input_dir", "stages.read.paths") or [PLACEHOLDER]
    return [located(config, project, each) for each in given]


def located(config: Config, project: Path, path: Any) -> str:
    """A path of the config as the new recipe names it."""
    if not path or plain(path) == PLACEHOLDER:
        return PLACEHOLDER
    return os.path.relpath(config.root / str(path), project.resolve())


def filled(text: str) -> str:
    """`{context}` as a prompt of ours names it."""
    return str(plain(_NAMES.sub(lambda hit: "{{" + hit[1] + "}}", text)))


def without_data(text: str) -> str:
    """The instruction of a prompt that holds the passages: they follow it here."""
    return " ".join(_DATA.sub(" ", text).split())


def context(config: Config, to: str) -> dict[str, str]:
    """What prompts say the documents are about."""
    about = config.text("dataset_context", to) or PLACEHOLDER
    if about == PLACEHOLDER:
        return dict.fromkeys(("context", "context_lowercase", "context_uppercase"), PLACEHOLDER)
    return {"context": about, "context_lowercase": about.lower(), "context_uppercase": about.upper()}


def system(config: Config, name: str) -> dict[str, Any] | None:
    """System prompts, one for each chat by seed."""
    prompts = config.texts(name, "stages.system.messages")
    if not prompts:
        return None
    messages = [filled(prompt) for prompt in prompts]
    stage: dict[str, Any] = {"kind": "generate.system", "messages": messages, "drop": 0.0}
    known = context(config, "stages.system.context") if any("{{context" in message for message in messages) else {}
    named = {key: value for key, value in known.items() if any("{{" + key + "}}" in m for m in messages)}
    return stage | ({"context": named} if named else {})
