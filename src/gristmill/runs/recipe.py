"""Recipe: what a person writes, validated whole before anything runs. All problems at once, each with its line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gristmill.core.stage import StageConfig
from gristmill.llm.budget import Limits
from gristmill.llm.spec import ModelSpec, StageSpec, fallback_of
from gristmill.runs.kinds import kinds
from gristmill.runs.repeat import Repeat
from gristmill.runs.search import LIST, Sweep
from gristmill.runs.sinks import SinkConfig, sinks
from gristmill.runs.source import RecipeError, Source, Where, read_source

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_TAGS = ("openai", "anthropic", "local", "from", LIST, "Choice", "Range")
"""Names that pydantic gives to the branches of a union; they are no keys of a recipe."""

PLACEHOLDER = "???"
"""A value that a person must fill in; it blocks the run."""


class Recipe(BaseModel):
    """A validated recipe."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str = Field(description="Short name; runs are called after it")
    description: str = ""
    seed: int = Field(0, ge=0, lt=2**63, description="Every random choice of the run follows from it")
    budget: Limits = Limits()
    models: dict[str, Any] = Field(default_factory=dict, description="Roles: name -> provider and model")
    stages: dict[str, Any] = Field(description="Stages: name -> kind and its settings")
    repeat: Repeat | None = Field(None, description="Stages that run again until a target is met")
    sweep: Sweep | None = Field(None, description="Values to try, one trial each: `gristmill sweep`")
    sinks: dict[str, Any] = Field(default_factory=dict, description="Trackers that follow the run: name -> settings")


@dataclass(frozen=True)
class Loaded:
    """A recipe whose every part is typed, the plain data it came from, and where its relative paths start."""

    name: str
    description: str
    seed: int
    budget: Limits
    models: dict[str, ModelSpec]
    stages: dict[str, StageConfig]
    repeat: Repeat | None
    sweep: Sweep | None
    sinks: dict[str, SinkConfig]
    source: Source

    @property
    def base(self) -> Path:
        return self.source.base

    def named(self, section: str) -> list[str]:
        """Every name in `stages` or `models`, of broken entries too."""
        entries = self.source.data.get(section)
        return list(entries) if isinstance(entries, dict) else []


def load_recipe(
    path: Path, sets: list[str] | None = None, base: Path | None = None, *, sweeps: list[str] | None = None
) -> Loaded:
    """Read, merge, validate."""
    return validate(read_source(path, sets, base, sweeps=sweeps))


def validate(source: Source) -> Loaded:
    """A recipe of plain data. Problems are gathered in `source`; entries that have some are left out, so that the plan
    can look for more among the others. Raises RecipeError when no stage is left."""
    _find_placeholders(source)
    top = _top(source) or Recipe(name="unsound", stages={})  # its problem is noted; the rest is checked all the same
    models = dict(_models(source))
    _check_fallbacks(source, models)
    stages = dict(_stages(source))
    repeat = _repeat(source)
    sweep = _sweep(source)
    if not stages:
        raise RecipeError(source.problems)
    followed = dict(_sinks(source))
    return Loaded(top.name, top.description, top.seed, top.budget, models, stages, repeat, sweep, followed, source)


def _find_placeholders(source: Source) -> None:
    def walk(value: Any, where: Where) -> None:
        if isinstance(value, dict):
            for key, child in value.items():
                walk(child, (*where, key))
        elif isinstance(value, list):
            for i, child in enumerate(value):
                walk(child, (*where, str(i)))
        elif isinstance(value, str) and (value == PLACEHOLDER or "PLACEHOLDER" in value):
            source.problem(where, f"`{'.'.join(where)}` is still a placeholder", "Fill it in, or give it with --set.")

    walk(source.data, ())


def _top(source: Source) -> Recipe | None:
    plain = {k: v for k, v in source.data.items() if k not in ("models", "stages", "repeat", "sweep")}
    mappings = {k: source.data[k] for k in ("models", "stages") if isinstance(source.data.get(k), dict)}
    for key in ("models", "stages"):
        if key in source.data and key not in mappings:
            source.problem((key,), f"`{key}` is a mapping of names")
    try:
        top = Recipe.model_validate({"stages": {}, **plain, **mappings})
    except ValidationError as error:
        _explain(source, (), error, list(Recipe.model_fields))
        return None
    if not mappings.get("stages"):
        source.problem(("stages",), "a recipe needs at least one stage")
    if not _NAME.fullmatch(top.name):
        source.problem(("name",), f"`{top.name}` is no name", "Use lower-case letters, digits, - and _.")
    return top


def _models(source: Source) -> Iterator[tuple[str, ModelSpec]]:
    adapter: TypeAdapter[ModelSpec] = TypeAdapter(ModelSpec)
    for name, entry in _entries(source, "models"):
        try:
            yield name, adapter.validate_python(entry)
        except ValidationError as error:
            _explain(source, ("models", name), error)


def _repeat(source: Source) -> Repeat | None:
    """The block of stages that runs again, as the recipe's stages stand."""
    if source.data.get("repeat") is None:
        return None
    try:
        repeat = Repeat.model_validate(source.data["repeat"])
    except ValidationError as error:
        _explain(source, ("repeat",), error, list(Repeat.model_fields))
        return None
    order = list(source.data["stages"]) if isinstance(source.data.get("stages"), dict) else []
    known = f"Its stages: {', '.join(order)}."
    unknown = [name for name in repeat.stages if name not in order]
    for name in unknown:
        source.problem(("repeat", "stages"), f"`repeat` names no stage: {name}", known)
    places = sorted(order.index(name) for name in repeat.stages if name in order)
    if places and places != list(range(places[0], places[0] + len(places))):
        hint = "Let nothing stand between them, and name each once: `after` moves a stage."
        source.problem(("repeat", "stages"), "the stages of `repeat` do not stand together", hint)
        return None
    if repeat.target is not None and repeat.target.stage not in repeat.stages:
        hint = f"Name one of {', '.join(repeat.stages)}."
        source.problem(("repeat", "until"), f"`{repeat.target.stage}` is no stage of `repeat`", hint)
    return None if unknown else repeat


def _sweep(source: Source) -> Sweep | None:
    """The sweep, whose every key must name what the recipe has."""
    if source.data.get("sweep") is None:
        return None
    try:
        sweep = Sweep.model_validate(source.data["sweep"])
    except ValidationError as error:
        _explain(source, ("sweep",), error, list(Sweep.model_fields))
        return None
    for key in sweep.keys:
        section, *rest = key.split(".")
        entries = source.data.get(section)
        known = list(entries) if isinstance(entries, dict) else []
        if section != "seed" and (not rest or rest[0] not in known):
            near = difflib.get_close_matches(rest[0] if rest else "", known, n=1)
            hint = f"Did you mean {section}.{near[0]}?" if near else f"Its {section}: {', '.join(known) or 'none'}."
            source.problem(("sweep", "keys", key), f"`{key}` names nothing in this recipe", hint)
    return sweep


def _sinks(source: Source) -> Iterator[tuple[str, SinkConfig]]:
    known = sinks()
    for name, entry in _entries(source, "sinks"):
        if name not in known:
            source.problem(("sinks", name), f"unknown sink `{name}`", f"Known sinks: {', '.join(sorted(known))}.")
            continue
        try:
            yield name, known[name].config.model_validate(entry)
        except ValidationError as error:
            _explain(source, ("sinks", name), error, list(known[name].config.model_fields))


def _check_fallbacks(source: Source, models: dict[str, ModelSpec]) -> None:
    """Who stands in for a model is another model that can be asked at any time."""
    for name, spec in models.items():
        where = ("models", name, "fallback")
        for other in fallback_of(spec):
            if other not in (source.data["models"]) or other == name:
                source.problem(where, f"`fallback` names no other model: {other}", f"Known: {', '.join(models)}.")
            elif isinstance(models.get(other), StageSpec):
                source.problem(
                    where, f"`fallback` names a model that a stage trains: {other}", "Name one that is there."
                )


def _stages(source: Source) -> Iterator[tuple[str, StageConfig]]:
    known = kinds()
    for name, entry in _entries(source, "stages"):
        where = ("stages", name)
        kind = entry.get("kind")
        if not isinstance(kind, str) or kind not in known:
            near = difflib.get_close_matches(str(kind), known, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"Known kinds: {', '.join(sorted(known))}."
            said = f"unknown kind `{kind}`" if kind else "a stage needs a `kind`"
            source.problem((*where, "kind"), said, hint)
            continue
        config = known[kind][-1].config
        try:
            yield name, config.model_validate(entry)
        except ValidationError as error:
            _explain(source, where, error, list(config.model_fields))


def _entries(source: Source, section: str) -> Iterator[tuple[str, dict[str, Any]]]:
    entries = source.data.get(section)
    for name, entry in (entries if isinstance(entries, dict) else {}).items():
        if not _NAME.fullmatch(name):
            source.problem((section, name), f"`{name}` is no name", "Use lower-case letters, digits, - and _.")
        elif not isinstance(entry, dict):
            source.problem((section, name), f"`{section}.{name}` is a mapping")
        else:
            yield name, entry


def _explain(source: Source, where: Where, error: ValidationError, fields: list[str] | None = None) -> None:
    """pydantic's findings in the recipe's own words, each at its line."""
    for found in error.errors(include_url=False):
        path = tuple(str(part) for part in found["loc"] if part not in _TAGS)
        here = (*where, *path)
        while here and here not in source.places and len(here) > len(where) + 1:
            here = here[:-1]  # union branches and the like are not keys of the recipe
        key = ".".join(path)
        if found["type"] == "extra_forbidden":
            names = fields if fields and len(path) == 1 else []
            near = difflib.get_close_matches(path[-1], names, n=1)
            known = f"Known keys: {', '.join(names)}." if names else ""
            source.problem(here, f"unknown key `{key}`", f"Did you mean `{near[0]}`?" if near else known)
        elif found["type"] == "missing":
            source.problem(here, f"`{key}` is missing")
        else:
            source.problem(here, f"`{key}`: {found['msg'].removeprefix('Value error, ')}" if key else found["msg"])
