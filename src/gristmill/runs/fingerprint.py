"""What a result depends on, as a key: the code that makes it, its settings, its prompts, its models, its inputs."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from gristmill.core.errors import ConfigError
from gristmill.core.records import digest_of
from gristmill.core.stage import load_code, room_of
from gristmill.runs.plan import Node, Plan


@cache
def code_hash(module: str) -> str:
    """Hash of the code that decides a stage's results: all of its room, and of `tasks` and `models` below it.

    Whole rooms, since a stage's code may run in a child process that no import leads to. A change redoes work, never
    answers: those are kept under what was asked. Of a plug-in: all of its package.
    """
    package = room_of(module) if module.startswith("gristmill.") else module.partition(".")[0]
    packages = [package, *(("gristmill.tasks", "gristmill.models") if module.startswith("gristmill.") else ())]
    return digest_of({str(path): digest for name in packages for path, digest in _sources(name)})


def _sources(package: str) -> Iterator[tuple[str, str]]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the code of {package} cannot be found", "Install it again.")
    folder = Path(spec.origin).parent
    paths = sorted(folder.rglob("*.py")) if spec.submodule_search_locations else [Path(spec.origin)]
    for path in paths:
        yield f"{package}/{path.relative_to(folder).as_posix()}", hashlib.sha256(path.read_bytes()).hexdigest()


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _program(name: str) -> str | None:
    """What a program says of its version; None where it is not installed."""
    if shutil.which(name) is None:
        return None
    done = subprocess.run([name, "--version"], capture_output=True, text=True, check=False, timeout=20)
    return (done.stdout or done.stderr).partition("\n")[0]


def node_key(
    plan: Plan, node: Node, identity: Callable[[str], str], file_hash: Callable[[Path], str]
) -> dict[str, Any]:
    """Everything but the records it takes that a node's results depend on. `identity` names the weights of a role."""
    return {
        "stage": node.entry,  # its random choices and its records' origin name it
        "kind": node.kind,
        "code": [code_hash(name) for name in (node.stage.code.partition(":")[0], *node.stage.modules)],
        "settings": plan.settings(node),
        "prompts": {name: prompt.hash for name, prompt in node.prompts.items()},
        "models": {role: identity(role) for role in node.roles},
        "seed": plan.recipe.seed,
        "libraries": {name: _version(name) for name in node.stage.libraries},
        "programs": {name: _program(name) for name in node.stage.programs},
        "files": outside(plan, node, file_hash),
    }


def outside(plan: Plan, node: Node, file_hash: Callable[[Path], str]) -> list[tuple[str, str]]:
    """Files that a node reads by itself, as (path, sha256)."""
    if not node.stage.inputs:
        return []
    paths = load_code(node.stage.inputs)(node.config, plan.recipe.base)
    return [(os.path.relpath(path, plan.recipe.base), file_hash(path)) for path in paths]


def run_fingerprint(plan: Plan, identity: Callable[[str], str], file_hash: Callable[[Path], str]) -> str:
    """Two runs with the same fingerprint are one run. Budgets are not in it: raising one goes on with the same run."""
    nodes = [[node.name, node.needs, node_key(plan, node, identity, file_hash)] for node in plan.nodes]
    until = [plan.recipe.repeat.until] if plan.recipe.repeat else []
    return digest_of([plan.recipe.name, nodes, *until])
