"""What a result depends on, as a key: the code that makes it, its settings, its prompts, its models, its inputs."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from gristmill.core.records import digest_of
from gristmill.core.stage import load_code
from gristmill.runs.plan import Node, Plan


@cache
def code_hash(module: str) -> str:
    """Hash of a stage's module and of everything it imports from its own room and from `tasks`."""
    room = module.rpartition(".")[0]
    seen: dict[str, bytes] = {}
    left = [module]
    while left:
        name = left.pop()
        spec = importlib.util.find_spec(name)
        if name in seen or spec is None or spec.origin is None:
            continue
        seen[name] = Path(spec.origin).read_bytes()
        left += [n for n in _imports(seen[name]) if n.startswith((f"{room}.", "gristmill.tasks"))]
    return digest_of({name: hashlib.sha256(text).hexdigest() for name, text in seen.items()})


def _imports(text: bytes) -> Iterable[str]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if _is_module(node.module, alias.name))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _is_module(package: str, name: str) -> bool:
    spec = importlib.util.find_spec(package) if package.startswith("gristmill.") else None
    return bool(spec and spec.submodule_search_locations and importlib.util.find_spec(f"{package}.{name}"))


def node_key(
    plan: Plan, node: Node, identity: Callable[[str], str], file_hash: Callable[[Path], str]
) -> dict[str, Any]:
    """Everything but the records it takes that a node's results depend on. `identity` names the weights of a role."""
    return {
        "kind": node.kind,
        "code": code_hash(node.stage.code.partition(":")[0]),
        "settings": plan.settings(node),
        "prompts": {name: prompt.hash for name, prompt in node.prompts.items()},
        "models": {role: identity(role) for role in node.roles},
        "seed": plan.recipe.seed,
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
    return digest_of([plan.recipe.name, nodes])
