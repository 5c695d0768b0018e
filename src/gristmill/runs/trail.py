"""A run's data set, and the trail behind it: what every record came from, and where it was dropped.

The data set is what the run trains on first; else what it exports; else the samples of its last stage that gave any.
All is read from the run's folder, row by row, and held as a few strings a record; nothing is, until it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from sys import intern
from typing import Any, NamedTuple

import orjson

from gristmill.core.records import File, Sample
from gristmill.core.versions import TRAIN, said, version_of
from gristmill.runs.folder import Output, RunFolder
from gristmill.runs.recipe import Loaded, load_recipe
from gristmill.runs.repeat import ALL, BEFORE
from gristmill.runs.tables import rows
from gristmill.tasks.task import question_key

JOINED = "conversation"
"""Kind of samples that stand for those they were joined from."""

WIDTH = 160
"""Characters of a sample that are told."""


class Item(NamedTuple):
    """A sample of a data set, as two versions are compared."""

    id: str
    said: str
    split: str
    slot: str  # kind and question: another answer to the same question is a change, not another sample
    words: str


class Made(NamedTuple):
    """Where a record came from."""

    type: str
    parents: tuple[str, ...]
    stage: str  # in the recipe's words, without the round


@dataclass
class Trail:
    """All records of a run by id, and what was dropped where."""

    folder: RunFolder

    @cached_property
    def recipe(self) -> Loaded:
        return load_recipe(self.folder.path / "recipe.yaml", base=Path(self.folder.manifest["base"]))

    @cached_property
    def _outputs(self) -> dict[str, Output]:
        return self.folder.outputs()

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """The stages that give the data set."""
        return self._data(self._outputs)

    @property
    def digests(self) -> list[str]:
        """Equal where two runs' data sets are the same records."""
        return [self._outputs[name].digest for name in self.stages]

    @cached_property
    def version(self) -> str:
        return version_of({row["id"]: _version_part(row) for row in self._rows()}.values())

    @cached_property
    def items(self) -> list[Item]:
        """The samples of the data set; in place of a conversation those that were joined to it."""
        joined = {parent: None for row in self._rows() if _kind(row) == JOINED for parent in row["parents"]}
        members = {
            row["id"]: _item(row)
            for output in (self._outputs.values() if joined else ())
            for row in rows(output.records)
            if row["id"] in joined
        }
        found: dict[str, Item] = {}
        for row in self._rows():
            parts = [members[parent] for parent in row["parents"] if parent in members] if _kind(row) == JOINED else []
            found |= {item.id: item for item in parts or [_item(row)]}
        return list(found.values())

    def _rows(self) -> Iterator[dict[str, Any]]:
        """The samples of the data set as they lie; those of several rounds may come more than once."""
        for name in self.stages:
            yield from (row for row in rows(self._outputs[name].records) if row["type"] == Sample.type)

    @cached_property
    def made(self) -> dict[str, Made]:
        found: dict[str, Made] = {}
        for node, output in self._outputs.items():
            for row in rows(output.records):
                if row["id"] not in found:
                    origin = orjson.loads(row["origin"]) if row["origin"] else {}
                    stage = intern(entry_of(origin.get("stage") or node))
                    found[row["id"]] = Made(intern(row["type"]), tuple(row["parents"]), stage)
        return found

    @cached_property
    def dropped(self) -> dict[str, dict[str, str]]:
        """Id -> stage -> reason."""
        found: dict[str, dict[str, str]] = {}
        for node, output in self._outputs.items():
            for row in output.rejects():
                found.setdefault(row["id"], {})[intern(entry_of(node))] = intern(row["reason"])
        return found

    @cached_property
    def files(self) -> dict[str, File]:
        """By id."""
        return {file.id: file for output in self._outputs.values() for file in output.only(File)}

    @cached_property
    def paths(self) -> frozenset[str]:
        return frozenset(file.path for file in self.files.values())

    def _data(self, outputs: dict[str, Output]) -> tuple[str, ...]:
        """The stages that give the data set."""
        trains = [name for name, c in self.recipe.stages.items() if c.kind.startswith("train.")]
        wanted = [need for name in trains[:1] for need in self.needs(name)]
        if not wanted:
            wanted = [name for name, config in self.recipe.stages.items() if config.kind == "curate.export"][-1:]
        found = tuple(
            name for need in wanted for name in self._rounds(need) if name in outputs and _gives(outputs[name])
        )
        return found or tuple(name for name, output in outputs.items() if _gives(output))[-1:]

    def needs(self, stage: str) -> list[str]:
        """The entries that one takes from: those it names, or the one before it."""
        config, names = self.recipe.stages[stage], list(self.recipe.stages)
        if config.needs is not None:
            return [need.removesuffix(f".{BEFORE}").removesuffix(f".{ALL}") for need in config.needs]
        return names[max(0, names.index(stage) - 1) : names.index(stage)]

    def before(self, stage: str) -> set[str]:
        """An entry and all that it rests on."""
        found: set[str] = set()
        left = [stage]
        while left:
            name = left.pop()
            if name in self.recipe.stages and name not in found:
                found.add(name)
                left += self.needs(name)
        return found

    def given_to(self, node: str) -> list[str]:
        """The outputs that one took from, in the rounds that it took."""
        entry, _, number = node.partition(".")
        repeat, config = self.recipe.repeat, self.recipe.stages[entry]
        at = int(number or 1) if repeat and entry in repeat.stages else 0
        needs = self.needs(entry) if config.needs is None else config.needs
        found = [name for need in needs for name in (repeat.sources(need, at=at) if repeat else [need])]
        return [name for name in found if name in self._outputs]

    def _rounds(self, need: str) -> list[str]:
        return self.recipe.repeat.sources(need, at=0) if self.recipe.repeat else [need]


def entry_of(node: str) -> str:
    """The recipe's name of a stage: without the round, and without the part of a kind made of several."""
    return node.partition(".")[0]


def _gives(output: Output) -> bool:
    return bool(output.count) and any(True for _ in output.only(Sample, most=1))


def _version_part(row: dict[str, Any]) -> tuple[str, str]:
    return said(orjson.loads(row["body"])), _split(row)


def _split(row: dict[str, Any]) -> str:
    return str(orjson.loads(row["marks"]).get("split", TRAIN))


def _kind(row: dict[str, Any]) -> str:
    return str(orjson.loads(row["body"])["kind"])


def _item(row: dict[str, Any]) -> Item:
    body = orjson.loads(row["body"])
    turns = list(_turns(body))
    asked = next((text for role, text in turns if role == "user"), "")
    words = " ".join(" / ".join(text for _, text in turns).split()) or body["text"]
    slot = f"{body['form']} {body['kind']} {question_key(asked)}" if asked else ""
    return Item(row["id"], said(body), _split(row), slot, words[:WIDTH])


def _turns(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for message in (*body["messages"], *body["chosen"]):
        if message["role"] != "system":
            yield message["role"], message["content"]
