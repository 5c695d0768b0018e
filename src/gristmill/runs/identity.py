"""Which run a plan is: the folder of everything with the same stages, models and inputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.core.errors import ConfigError
from gristmill.llm.spec import LocalSpec, StageSpec, remote_identity
from gristmill.models.weights import locate
from gristmill.runs.context import Current
from gristmill.runs.fingerprint import node_key, run_fingerprint
from gristmill.runs.folder import RunFolder
from gristmill.runs.plan import Node, Plan, make_plan
from gristmill.runs.workspace import Workspace

MADE_WITH = ("code", "libraries", "programs")
"""Of a node's key: what may change its results though nobody has changed the recipe."""


class Identities:
    """Names of the weights behind roles: before a run (a trained model is named by its stage), and during it."""

    def __init__(self, plan: Plan, workspace: Workspace) -> None:
        self.plan = plan
        self.workspace = workspace

    def before(self, role: str) -> str:
        spec = self.plan.recipe.models[role]
        if isinstance(spec, StageSpec):
            return f"from {spec.from_}"
        if isinstance(spec, LocalSpec):
            hasher = self.workspace.store.file_hash
            return f"weights {locate(spec.model, base=self.plan.recipe.base, hasher=hasher).sha256}"
        return remote_identity(spec)

    def hashes(self) -> dict[str, Any]:
        """What a run depends on besides its recipe, for its manifest: the models it names, the files it reads, and for
        each stage the hash of its code and the versions of the libraries and programs that decide what it gives."""
        file_hash = self.workspace.store.file_hash
        keys = {node.name: node_key(self.plan, node, self.before, file_hash) for node in self.plan.nodes}
        inputs = {path: digest for key in keys.values() for path, digest in key["files"]}
        used = {role for node in self.plan.nodes for role in node.roles}
        made = {name: {part: key[part] for part in MADE_WITH} for name, key in keys.items()}
        return {"models": {role: self.before(role) for role in sorted(used)}, "inputs": inputs, "made_with": made}

    def during(self, current: Current, node: Node) -> Callable[[str], str]:
        def name(role: str) -> str:
            trained = isinstance(self.plan.recipe.models[role], StageSpec)
            return f"weights {current.weights(role, node).sha256}" if trained else self.before(role)

        return name


@dataclass(frozen=True)
class Identity:
    fingerprint: str
    folder: RunFolder
    names: Identities


def identify(plan: Plan, workspace: Workspace) -> Identity:
    names = Identities(plan, workspace)
    fingerprint = run_fingerprint(plan, names.before, workspace.store.file_hash)
    folder = RunFolder(workspace.runs / f"{plan.recipe.name}-{fingerprint[:8]}")
    return Identity(fingerprint, folder, names)


def plan_of(folder: RunFolder, workspace: Workspace) -> Plan:
    """The plan of a run, from its folder alone. ConfigError where what it was made from is no longer the same."""
    manifest = folder.manifest
    plan = make_plan(folder.path / "recipe.yaml", base=Path(manifest["base"]))
    this = identify(plan, workspace)
    if this.fingerprint != manifest["fingerprint"]:
        now = this.names.hashes()
        changed = [what for what in ("models", "inputs") if now[what] != manifest[what]]
        raise ConfigError(
            f"run {folder.path.name} cannot go on: its {' and '.join(changed) or 'prompts or code'} have changed",
            "`gristmill run RECIPE` makes a new run, which pays only for what has changed.",
        )
    return plan
