"""A config of Augmentoolkit → a recipe. Every name of the config is in the account: where it is now, or why nowhere."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gristmill.core.errors import ConfigError
from gristmill.runs.from_augmentoolkit.config import Config, read_config
from gristmill.runs.from_augmentoolkit.keys import why_not
from gristmill.runs.from_augmentoolkit.parts import REPEAT, Stages
from gristmill.runs.from_augmentoolkit.pipelines import BUILDERS, ELSEWHERE


@dataclass(frozen=True)
class Converted:
    """A recipe as a file's text, and the account of the config."""

    recipe: str
    carried: dict[str, str]  # place in the config -> place in the recipe
    left: dict[str, str]  # place in the config -> why it is nowhere


def convert(path: Path, project: Path) -> Converted:
    """`project`: the folder that the recipe will lie in. ConfigError for a pipeline that is no recipe here."""
    config = read_config(path)
    builder = BUILDERS.get(config.pipeline)
    if builder is None:
        known = f"These convert: {', '.join(BUILDERS)}."
        raise ConfigError(f"the pipeline {config.pipeline} is no recipe here", ELSEWHERE.get(config.pipeline, known))
    models, stages = builder(config, project)
    _harvest(config, stages)
    for name in list(config.rest()):
        config.leave(name, why_not(name))
    carried = {place: _where(to, stages) for place, to in config.carried.items()}
    repeat = models.pop(REPEAT, None)
    recipe: dict[str, Any] = {"name": _name(path), "description": f"Converted from {config.pipeline}", "seed": 7}
    recipe |= {"models": models, "stages": stages} | ({"repeat": repeat} if repeat else {})
    text = _header(path, config.left) + yaml.dump(
        recipe, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None
    )
    return Converted(text, carried, config.left)


def _harvest(config: Config, stages: Stages) -> None:
    """Prompts and answers as lessons for a writer, of all that came through."""
    if config.take("do_meta_datagen", "stages.harvest", False):
        stages["harvest"] = {"kind": "generate.harvest", "needs": _exported(stages)}
        stages["lessons"] = {"kind": "curate.export", "name": "lessons", "formats": ["openai"]}
        config.leave("meta_datagen_keys", "the answers of all stages are taken; stages.harvest.of names some")


def _exported(stages: Stages) -> list[str]:
    """What the exports take: all that came through. A classifier's lessons are its rules and labels."""
    if "label" in stages:
        return ["rules", "label"]
    names = list(stages)
    taken = [stages[name].get("needs") or [names[at - 1]] for at, name in enumerate(names)
             if stages[name]["kind"] == "curate.export"]  # fmt: skip
    return list(dict.fromkeys(name for each in taken for name in each))


def _where(to: str, stages: Stages) -> str:
    """What a switch of the config turns off is no stage of the recipe."""
    named = to.split(".")[1].partition(":")[0] if to.startswith("stages.") else None
    return f"{to} is left out" if named and named not in stages else to


def _name(path: Path) -> str:
    name = "".join(letter if letter.isalnum() else "-" for letter in path.stem.lower()).strip("-")
    return name[:40] if name[:1].isalpha() and name.isascii() else "converted"


def _header(path: Path, left: dict[str, str]) -> str:
    """What did not come along stands above the recipe, grouped by the reason."""
    lines = [f"Converted from {path.name} by `gristmill init --from-augmentoolkit`."]
    lines += ["Then: export LLM_KEY=…, `gristmill check recipe.yaml`, `gristmill run recipe.yaml`."]
    reasons: dict[str, list[str]] = {}
    for place, why in left.items():
        reasons.setdefault(why, []).append(place)
    lines += ["", "Without a counterpart:"] if reasons else []
    for why, places in reasons.items():
        lines += textwrap.wrap(f"{', '.join(places)}: {why}.", 112, initial_indent="  ", subsequent_indent="    ")
    return "".join(f"# {line}".rstrip() + "\n" for line in lines)


class _Dumper(yaml.SafeDumper):
    """Without anchors: a recipe is read by people."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True
