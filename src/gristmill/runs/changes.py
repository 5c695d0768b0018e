"""What is not as it was when a run was made: its inputs, prompts and weights, and the code and machine under it.

`hard` changes forbid the same result, `soft` ones may bring another; both by the stage they concern, in words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gristmill.models.weights import MANIFEST
from gristmill.runs.fingerprint import outside
from gristmill.runs.folder import RunFolder
from gristmill.runs.identity import Identities
from gristmill.runs.manifest import installed, machine
from gristmill.runs.plan import Node, Plan

Change = tuple[Any, Any]
"""Then and now."""


@dataclass(frozen=True)
class Changes:
    hard: dict[str, list[str]]
    soft: dict[str, list[str]]
    inputs: dict[str, Change]
    models: dict[str, Change]
    environment: dict[str, Change]


def changes_of(folder: RunFolder, names: Identities) -> Changes:
    """A run's manifest beside what is here. `names` knows the run's plan, and reads every file anew."""
    manifest, plan, now = folder.manifest, names.plan, names.hashes()
    inputs, models = _changed(manifest["inputs"], now["inputs"]), _changed(manifest["models"], now["models"])
    environment = dict(_environment(folder))

    def hard(node: Node) -> Iterator[str]:
        read = {path for path, _ in outside(plan, node, names.workspace.store.file_hash)}
        for path, (then, here) in inputs.items():
            if path in read or (node.stage.inputs and here is None):
                yield f"{path} {'is new' if then is None else 'is gone' if here is None else 'has changed'}"
        yield from (f"the weights or the address of {role} have changed" for role in node.roles if role in models)
        for name, prompt in node.prompts.items():
            then = manifest["prompts"].get(f"{node.name}/{name}")
            if then != prompt.ref:
                yield f"the prompt {then or name} is {prompt.ref} now"

    def soft(node: Node) -> Iterator[str]:
        then, here = manifest.get("made_with", {}).get(node.name, {}), now["made_with"][node.name]
        if then.get("code") != here["code"]:
            yield "the code that makes it has changed"
        for part in ("libraries", "programs"):
            for name, (old, new) in _changed(then.get(part, {}), here[part]).items():
                yield f"{name} was {old}, and is {new} here"
        if node.stage.artifacts:
            told = ((name, change) for name, change in environment.items() if name.startswith(("hardware", "settings")))
            yield from (f"{name} was {old}, and is {new} here" for name, (old, new) in told)

    return Changes(_by_stage(plan, hard), _by_stage(plan, soft), inputs, models, environment)


def surroundings(then: Path, here: Path) -> Iterator[str]:
    """What the manifests of two trainings say of what they ran on, where that is not the same: passes of another size,
    as free memory had it, or other threads give other last bits."""
    found = [orjson.loads((folder / MANIFEST).read_bytes()) for folder in (then, here) if (folder / MANIFEST).is_file()]
    if len(found) == 2:
        told = (manifest["metadata"].get("around", {}) for manifest in found)
        yield from (f"{name} was {old}, and is {new} here" for name, (old, new) in _changed(*told).items())


def _by_stage(plan: Plan, found: Callable[[Node], Iterator[str]]) -> dict[str, list[str]]:
    return {node.name: words for node in plan.nodes if (words := list(found(node)))}


def _changed(then: dict[str, Any], now: dict[str, Any]) -> dict[str, Change]:
    """Every name whose value is not the same, with both; None where there is none."""
    names = dict.fromkeys((*then, *now))
    return {name: (then.get(name), now.get(name)) for name in names if then.get(name) != now.get(name)}


def _environment(folder: RunFolder) -> Iterator[tuple[str, Change]]:
    """The machine of the run's last attempt and this one: versions, cores, cards, variables, and every package."""
    then, now = folder.manifest["attempts"][-1], machine()
    for name in ("gristmill", "git", "python", "os", "lock"):
        if then.get(name) != now[name]:
            yield name, (then.get(name), now[name])
    for part in ("hardware", "settings"):
        for name, change in _changed(then.get(part, {}), now[part]).items():
            yield f"{part}: {name}", change
    path = folder.path / "environment" / f"{then.get('lock')}.txt"
    packages = path.read_text("utf-8").splitlines() if path.exists() else []
    for name, change in _changed(_versions(packages), _versions(installed())).items():
        yield f"package: {name}", change


def _versions(packages: list[str]) -> dict[str, str]:
    return {name: version for name, _, version in (line.partition("==") for line in packages)}
