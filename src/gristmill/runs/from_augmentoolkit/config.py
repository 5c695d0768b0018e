"""A config of Augmentoolkit: YAML whose sections are for its readers, its names one space. What is taken of it and what
is not is written down, so that nothing is left behind unsaid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from gristmill.core.errors import ConfigError
from gristmill.runs.recipe import PLACEHOLDER

MARK = "PLACEHOLDER"
"""Stands in a config where its user must write something: as a YAML tag, or within a text."""


@dataclass
class Config:
    """Its values by name, each with the section it stands in."""

    pipeline: str
    values: dict[str, Any]
    places: dict[str, str]
    root: Path  # its paths are relative to this
    carried: dict[str, str] = field(default_factory=dict)  # place -> where it is now
    left: dict[str, str] = field(default_factory=dict)  # place -> why it is nowhere

    def take(self, name: str, to: str, default: Any = None) -> Any:
        """A value, noted as carried over; the default where it is not there or empty."""
        value = self.values.get(name)
        if name in self.values:
            self.carried[self.places[name]] = to
        return default if value in (None, "", [], {}) else value

    def texts(self, name: str, to: str) -> list[str]:
        """A list of texts; one alone is a list of one."""
        value = self.take(name, to, [])
        return [str(each) for each in (value if isinstance(value, list | dict) else [value])]

    def text(self, name: str, to: str) -> str | None:
        """A text as a recipe has it; YAML reads a number or a date where one was meant, too."""
        value = self.take(name, to)
        if isinstance(value, list | dict):
            raise ConfigError(f"{self.places[name]} is no text: {value!r}", "Write one into the config.")
        return None if value is None else str(plain(value))

    def number(self, name: str, to: str, default: float) -> float:
        """A value that the recipe is computed with."""
        value = self.take(name, to, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ConfigError(f"{self.places[name]} is no number: {value!r}", "Write one into the config.")
        return value

    def leave(self, name: str, why: str) -> None:
        if name in self.values and self.places[name] not in self.carried:
            self.left[self.places[name]] = why

    def refuse(self, name: str, why: str) -> None:
        """A value that was looked at and cannot come along."""
        self.carried.pop(self.places[name], None)
        self.left[self.places[name]] = why

    def rest(self) -> Iterator[str]:
        """Names that nobody has looked at."""
        for name, place in self.places.items():
            if place not in self.carried and place not in self.left:
                yield name


def read_config(path: Path) -> Config:
    """ConfigError where it is none."""
    try:
        data = _data(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}", "Give a config file of Augmentoolkit.") from error
    if not isinstance(data, dict) or not isinstance(data.get("pipeline"), str):
        raise ConfigError(f"{path.name} names no `pipeline:`", "Give a config file of Augmentoolkit 3.")
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for section, inner in data.items():
        if section in ("pipeline", "no_flatten"):
            continue
        whole = not isinstance(inner, dict) or section in (data.get("no_flatten") or ())
        for name, value in ({section: inner} if whole else inner).items():
            if str(name) in places:
                raise _twice(path.name, name)
            values[str(name)] = value
            places[str(name)] = str(section) if whole else f"{section}.{name}"
    root = path.resolve().parent
    return Config(data["pipeline"], values, places, root.parent if root.name == "external_configs" else root)


def _twice(file: str, name: object) -> ConfigError:
    return ConfigError(f"{file} says {name} twice", "Names are one space: keep one of them.")


def _data(path: Path) -> Any:
    loader = _Loader(path.read_text("utf-8"))
    loader.name = path.name
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    """Reads the placeholders, which are written as tags that YAML does not know, and no name twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        names: list[Any] = [key.value for key, _ in node.value]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise _twice(self.name, name)
        return node


def _placeholder(_: yaml.SafeLoader, suffix: str, node: yaml.Node) -> str:
    if MARK not in suffix:
        raise yaml.YAMLError(f"line {node.start_mark.line + 1}: unknown tag !!{suffix}")
    return PLACEHOLDER


_Loader.add_multi_constructor("tag:yaml.org,2002:", _placeholder)


def plain(value: Any) -> Any:
    """A value as a recipe has it: a text that holds a placeholder is one."""
    if isinstance(value, str) and MARK in value:
        return PLACEHOLDER
    return [plain(each) for each in value] if isinstance(value, list) else value
