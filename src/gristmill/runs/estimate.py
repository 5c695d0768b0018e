"""What a run will take, found out on a few of its records before the rest is paid for."""

from __future__ import annotations

from typing import Any

import orjson

from gristmill.runs.workspace import Workspace


def kept_estimate(workspace: Workspace, run: str) -> dict[str, Any] | None:
    """The last estimate of this very run; None where nobody asked for one."""
    path = workspace.root / "estimates" / f"{run}.json"
    return orjson.loads(path.read_bytes()) if path.exists() else None
