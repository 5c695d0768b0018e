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

COUNTED = ("earlier runs", "earlier samples")
"""What a stage that looks at them counts."""


def earlier_runs(workspace: Workspace, this: RunFolder, names: Sequence[str] | None) -> list[Earlier]:
    """Ended runs of other recipes that were begun before this one; or those that are named. The oldest first."""
    workspace, this = workspace.stands_for(this)
    found = _named(workspace, this, names) if names is not None else list(_others(workspace, this))
    held = []
    for folder in sorted(found, key=lambda each: (str(each.manifest["created"]), each.path.name)):
        output = _last_samples(folder)
        if output is not None:
            held.append(Earlier(str(folder.manifest["name"]), output.digest, output))
        elif names is not None:
            raise InputError(f"run {folder.manifest['name']} holds no samples", "Name a run that made some.")
    return held


def seen_otherwise(then: Output, now: Output) -> Iterator[str]:
    """Where a stage that is made again does not meet the earlier runs that it met."""
    counts = [output.meta["counts"]["more"] for output in (then, now)]
    if any(counts[0].get(name) != counts[1].get(name) for name in COUNTED):
        was, here = (f"{more.get(COUNTED[0], 0)} with {more.get(COUNTED[1], 0)} samples" for more in counts)
        yield f"the earlier runs were {was}, and are {here} here"


def _named(workspace: Workspace, this: RunFolder, names: Sequence[str]) -> list[RunFolder]:
    folders = {path.name: RunFolder(path) for path in map(workspace.find_run, names)}
    if this.path.name in folders:
        raise InputError("a run is none of its own earlier runs", f"Of {', '.join(names)}, one is this run itself.")
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
