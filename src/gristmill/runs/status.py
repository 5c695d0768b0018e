"""A run's state, read from its folder alone."""

from __future__ import annotations

from typing import Any

from gristmill.core.events import read_events
from gristmill.runs.folder import RunFolder
from gristmill.runs.workspace import Workspace


def run_status(workspace: Workspace, name: str) -> dict[str, Any]:
    """State, stage, progress, spending. `interrupted`: the process died; the same command goes on."""
    folder = RunFolder(workspace.find_run(name))
    manifest = folder.manifest
    summary = folder.summary
    stage, progress, ended = None, None, None
    for event in read_events(folder.path / "events.ndjson"):
        kind = event["event"]
        if kind == "run.started":
            ended, stage, progress = None, None, None
        elif kind == "stage.started":
            stage, progress = event["stage"], f"0 of {event['records']}"
        elif kind == "progress":
            stage, progress = event["stage"], f"{event['done']:g} of {event['total']:g}"
        elif kind == "stage.finished":
            stage, progress = event["stage"], f"done, {event['given']} out"
        elif kind.startswith("run."):
            ended = kind.removeprefix("run.")
    state = "running" if folder.running() else ended or "interrupted"
    spent = workspace.store.spent(folder.path.name)
    return {
        "id": manifest["id"],
        "name": manifest["name"],
        "state": state,
        "stage": stage,
        "progress": progress,
        "started": manifest["started"],
        "error": summary.get("error") if ended else None,
        "hint": summary.get("hint") if ended else None,
        "spent": {"calls": spent.calls, "tokens_in": spent.tokens_in, "tokens_out": spent.tokens_out},
    }
