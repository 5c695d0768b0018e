"""A run's data set, and the trail behind it: what every record came from, and where it was dropped.

The data set is what the run trains on first; else what it exports; else the samples of its last stage that gave any.
All is read from the run's folder, row by row, and held as a few strings a record.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

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


@dataclass(frozen=True)
class Item:
    """A sample of a data set, as two versions are compared."""

    id: str
    said: str
    split: str
    slot: str  # kind and question: another answer to the same question is a change, not another sample
    words: str


@dataclass(frozen=True)
class Made:
    """Where a record came from."""

    type: str
    parents: tuple[str, ...]
    stage: str  # in the recipe's words, without the round


@dataclass
class Trail:
    """All records of a run by id, and what was dropped where."""

    folder: RunFolder
    made: dict[str, Made] = field(default_factory=dict)
    dropped: dict[str, dict[str, str]] = field(default_factory=dict)  # id -> stage -> reason
    files: dict[str, str] = field(default_factory=dict)  # path -> sha256
    paths: dict[str, str] = field(default_factory=dict)  # id of a file -> path
    items: list[Item] = field(default_factory=list)
    version: str = ""
    stages: tuple[str, ...] = ()  # whose samples the data set is

    @cached_property
    def recipe(self) -> Loaded:
        return load_recipe(self.folder.path / "recipe.yaml", base=Path(self.folder.manifest["base"]))

    @classmethod
    def of(cls, folder: RunFolder) -> Trail:
        trail = cls(folder)
        outputs = folder.outputs()
        trail.stages = trail._data(outputs)
        given: dict[str, Item] = {}
        for name, output in outputs.items():
            trail._read(name, output, given)
        last = {row["id"]: row for name in trail.stages for row in rows(outputs[name].records)}
        trail.version = version_of(_version_part(row) for row in last.values() if row["type"] == Sample.type)
        for row in last.values():
            if row["type"] == Sample.type:
                item, kind = _item(row)
                members = [given[parent] for parent in row["parents"] if parent in given] if kind == JOINED else []
                trail.items += members or [item]
        return trail

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

    def _rounds(self, need: str) -> list[str]:
        return self.recipe.repeat.sources(need, at=0) if self.recipe.repeat else [need]

    def _read(self, node: str, output: Output, given: dict[str, Item]) -> None:
        for row in rows(output.records):
            if row["id"] not in self.made:
                origin = orjson.loads(row["origin"]) if row["origin"] else {}
                stage = entry_of(origin.get("stage") or node)
                self.made[row["id"]] = Made(row["type"], tuple(row["parents"]), stage)
                if row["type"] == File.type:
                    body = orjson.loads(row["body"])
                    self.files[body["path"]] = body["sha256"]
                    self.paths[row["id"]] = body["path"]
            if row["type"] == Sample.type:
                given[row["id"]] = _item(row)[0]
        for row in output.rejects():
            self.dropped.setdefault(row["id"], {})[entry_of(node)] = row["reason"]


def entry_of(node: str) -> str:
    """The recipe's name of a stage: without the round, and without the part of a kind made of several."""
    return node.partition(".")[0]


def _gives(output: Output) -> bool:
    return bool(output.count) and any(True for _ in output.only(Sample, most=1))


def _version_part(row: dict[str, Any]) -> tuple[str, str]:
    return said(orjson.loads(row["body"])), _split(row)


def _split(row: dict[str, Any]) -> str:
    return str(orjson.loads(row["marks"]).get("split", TRAIN))


def _item(row: dict[str, Any]) -> tuple[Item, str]:
    body = orjson.loads(row["body"])
    turns = list(_turns(body))
    asked = next((text for role, text in turns if role == "user"), "")
    words = " ".join(" / ".join(text for _, text in turns).split()) or body["text"]
    slot = f"{body['form']} {body['kind']} {question_key(asked)}" if asked else ""
    return Item(row["id"], said(body), _split(row), slot, words[:WIDTH]), body["kind"]


def _turns(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for message in (*body["messages"], *body["chosen"]):
        if message["role"] != "system":
            yield message["role"], message["content"]
