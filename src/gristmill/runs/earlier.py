"""What earlier runs of a workspace hold: the samples that each came to in the end.

Of runs of one recipe the last counts: the others are former versions of the same data. A run of the recipe that asks is
none: it would find itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from gristmill.core.errors import InputError
from gristmill.core.records import Sample
from gristmill.core.stage import Earlier
from gristmill.runs.folder import Output, RunFolder
from gristmill.runs.workspace import Workspace

ENDED = ("finished", "incomplete")


def earlier_runs(workspace: Workspace, this: RunFolder, names: Sequence[str] | None) -> list[Earlier]:
    """Ended runs of other recipes that were begun before this one; or those that are named. The oldest first."""
    found = _named(workspace, names) if names is not None else list(_others(workspace, this))
    held = []
    for folder in sorted(found, key=lambda each: (str(each.manifest["created"]), each.path.name)):
        output = _last_samples(folder)
        if output is not None:
            held.append(Earlier(str(folder.manifest["name"]), output.digest, output))
        elif names is not None:
            raise InputError(f"run {folder.manifest['name']} holds no samples", "Name a run that made some.")
    return held


def _named(workspace: Workspace, names: Sequence[str]) -> list[RunFolder]:
    folders = {path.name: RunFolder(path) for path in map(workspace.find_run, names)}
    return list(folders.values())


def _others(workspace: Workspace, this: RunFolder) -> Iterator[RunFolder]:
    mine: dict[str, Any] = this.manifest
    seen = {mine["recipe"]}
    for manifest in sorted(workspace.manifests(), key=lambda each: str(each["created"]), reverse=True):
        folder = RunFolder(workspace.runs / str(manifest["id"]))
        if (
            manifest["recipe"] not in seen
            and str(manifest["created"]) <= mine["created"]
            and folder.summary.get("state") in ENDED
        ):
            seen.add(manifest["recipe"])
            yield folder


def _last_samples(folder: RunFolder) -> Output | None:
    outputs = reversed(folder.outputs().values())
    return next((output for output in outputs if any(True for _ in output.only(Sample, most=1))), None)
