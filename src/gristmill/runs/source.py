"""Recipes as text: strict YAML with the line of every key, `extends`, `--set a.b=c`. Plain data, no meaning yet."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gristmill.core.errors import ConfigError

Where = tuple[str, ...]
"""Path of keys from the top of a recipe."""


@dataclass(frozen=True)
class Place:
    """A file and a line, for messages."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do about it."""

    place: Place
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" + (f". {self.hint}" if self.hint else "")


class RecipeError(ConfigError):
    """A recipe with its whole list of problems."""

    def __init__(self, problems: list[Problem]) -> None:
        count = f"{len(problems)} problem" + ("s" if len(problems) > 1 else "")
        self.problems = sorted(problems, key=lambda p: (p.place.file, p.place.line))
        super().__init__(f"{count} in the recipe\n" + "\n".join(f"  {p}" for p in self.problems))


@dataclass
class Source:
    """Plain data of a recipe, and the place every key came from."""

    data: dict[str, Any]
    places: dict[Where, Place]
    base: Path  # relative paths start here: the folder of the recipe that was named
    problems: list[Problem] = field(default_factory=list)

    def place(self, where: Where) -> Place:
        """The place of a key, or of the nearest key above it."""
        for end in range(len(where), -1, -1):
            if where[:end] in self.places:
                return self.places[where[:end]]
        return Place("recipe", 0)

    def problem(self, where: Where, message: str, hint: str = "") -> None:
        found = Problem(self.place(where), message, hint)
        self.problems += [found] * (found not in self.problems)  # a stage of several rounds is wrong once

    def trial(self, values: dict[str, Any]) -> Source:
        """The same recipe with the values of a trial in place of its `sweep`; each counts as written where it is
        swept."""
        data = {name: deepcopy(part) for name, part in self.data.items() if name != "sweep"}
        changed = Source(data, dict(self.places), self.base)
        for key, value in values.items():
            _put(changed, tuple(key.split(".")), deepcopy(value), self.place(("sweep", "keys", key)))
        _drop_nulls_and_place(changed)
        return changed


def read_source(
    path: Path, sets: list[str] | None = None, base: Path | None = None, *, sweeps: list[str] | None = None
) -> Source:
    """A recipe file with everything it extends, then the `--set` and `--sweep` values, in that order. A run's own copy
    of its recipe lies elsewhere than the recipe did: `base` is where that was."""
    source = _read_chain(path.resolve(), ())
    source.base = base or source.base
    for assignment in sets or []:
        key, value, place = _assignment("--set", assignment, "{}")
        _put(source, tuple(key.split(".")), value, place)
    for assignment in sweeps or []:
        key, values, place = _assignment("--sweep", assignment, "[{}]")
        only = values[0] if isinstance(values, list) and len(values) == 1 else None
        _put(source, ("sweep", "keys", key), only if isinstance(only, dict | list) else values, place)
    _drop_nulls_and_place(source)
    return source


def _read_chain(path: Path, seen: tuple[Path, ...]) -> Source:
    if path in seen:
        raise ConfigError(f"{path.name} extends itself", "Remove one `extends:` of the circle.")
    source = _read_file(path)
    parent = source.data.pop("extends", None)
    if parent is None:
        return source
    if not isinstance(parent, str):
        raise RecipeError([Problem(source.place(("extends",)), "`extends` takes the path of one recipe file")])
    below = _read_chain((path.parent / parent).resolve(), (*seen, path))
    _merge(below, source)
    return Source(below.data, below.places, path.parent, below.problems + source.problems)


def _read_file(path: Path) -> Source:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the recipe {path}: {error}", "Give the path of a YAML file.") from error
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 0
        detail = getattr(error, "problem", None) or str(error)
        raise RecipeError([Problem(Place(path.name, line), f"not valid YAML: {detail}")]) from error
    source = Source({}, {(): Place(path.name, 1)}, path.parent)
    if not isinstance(node, yaml.MappingNode):
        raise RecipeError([Problem(Place(path.name, 1), "a recipe is a mapping", "Start with `name:` and `stages:`.")])
    source.data = _Reader(path.name, source).read(node, ())
    return source


class _Reader:
    """YAML nodes to plain data: unique string keys, a bounded number of nodes (aliases can multiply without end)."""

    def __init__(self, file: str, source: Source) -> None:
        self.file = file
        self.source = source
        self.budget = 20_000

    def read(self, node: yaml.Node, where: Where) -> Any:
        self.budget -= 1
        if self.budget < 0:
            raise ConfigError(f"{self.file} holds too many values", "Remove aliases that repeat large parts.")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, where)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*where, str(i))) for i, item in enumerate(node.value)]
        try:
            return yaml.SafeLoader("").construct_object(node)
        except (yaml.YAMLError, ValueError):  # a date that no calendar has
            self.source.problems.append(Problem(self.source.place(where), f"not a value: {node.value}", "Quote it."))
            return None

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                place = Place(self.file, key_node.start_mark.line + 1)
                self.source.problems.append(Problem(place, "a key is a name, not a list or a mapping"))
                continue
            key = str(key_node.value)
            here = (*where, key)
            place = Place(self.file, key_node.start_mark.line + 1)
            if key in result:
                self.source.problems.append(Problem(place, f"`{key}` stands twice", "Keep one."))
            self.source.places[here] = place
            result[key] = self.read(value_node, here)
        return result


def _merge(below: Source, above: Source, where: Where = ()) -> None:
    """Lay `above` over `below`: mappings key by key, all else replaced. A stage of another kind starts afresh."""
    target, patch = _at(below.data, where), _at(above.data, where)
    for key, value in patch.items():
        here = (*where, key)
        old = target.get(key)
        fresh = len(here) == 2 and here[0] == "stages" and _kind(value) not in (None, _kind(old))
        below.places[here] = above.place(here)
        if isinstance(value, dict) and isinstance(old, dict) and not fresh:
            _merge(below, above, here)
        else:
            target[key] = value
            below.places |= {w: p for w, p in above.places.items() if w[: len(here)] == here}


def _at(data: dict[str, Any], where: Where) -> dict[str, Any]:
    for key in where:
        data = data[key]
    return data


def _kind(entry: Any) -> str | None:
    return entry.get("kind") if isinstance(entry, dict) else None


def _assignment(option: str, text: str, written: str) -> tuple[str, Any, Place]:
    """`stages.read.paths=["a/"]` as key, value and place: the value is YAML, so numbers, lists and null keep their
    type. `written`: what of it is read, `[{}]` makes a list of `1, 2`."""
    key, equals, value = text.partition("=")
    place = Place(f"{option} {text}", 0)
    if not equals or not all(key.strip().split(".")):
        raise RecipeError([Problem(place, f"write it as {option} a.b=value")])
    try:
        return key.strip(), yaml.safe_load(written.replace("{}", value)), place
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError([Problem(place, "the value is not valid YAML", "Quote it for the shell.")]) from error


def _put(source: Source, keys: Where, value: Any, place: Place) -> None:
    """Lay one value over a recipe, in mappings that are made where there are none."""
    target = source.data
    for key in keys[:-1]:
        if target.get(key) is None:
            target[key] = {}
        target = target[key]
        if not isinstance(target, dict):
            raise RecipeError([Problem(place, f"`{key}` holds a value, not more keys")])
    target[keys[-1]] = value
    source.places = {w: p for w, p in source.places.items() if w[: len(keys)] != keys}
    source.places[keys] = place


def _drop_nulls_and_place(source: Source) -> None:
    """A stage, model or sink set to null is removed; `after: X` moves a stage behind X."""
    for section in ("stages", "models", "sinks"):
        entries = source.data.get(section)
        if isinstance(entries, dict):
            source.data[section] = {k: v for k, v in entries.items() if v is not None}
    stages = source.data.get("stages")
    if not isinstance(stages, dict):
        return
    order = list(stages)
    for name in list(stages):
        after = stages[name].get("after") if isinstance(stages[name], dict) else None
        if after is None:
            continue
        if after not in stages or after == name:
            source.problem(("stages", name, "after"), f"`after` names no other stage: {after}", _known(stages))
            continue
        order.remove(name)
        order.insert(order.index(after) + 1, name)
    source.data["stages"] = {name: stages[name] for name in order}


def _known(names: Any) -> str:
    return f"Known: {', '.join(names)}."
