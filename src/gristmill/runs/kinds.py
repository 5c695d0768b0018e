"""Every kind of stage: ours from one dictionary per room, other packages' by the entry point `gristmill.stages`."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points

from gristmill.core.errors import ConfigError
from gristmill.core.stage import STAGES

ROOMS = ("ingest", "generate", "curate", "train", "evaluate")


@cache
def kinds() -> STAGES:
    """Kind -> the stages it is made of. Importing this imports configs only, never a stage's code."""
    found: STAGES = {}
    for room in ROOMS:
        found |= importlib.import_module(f"gristmill.{room}.stages").STAGES
    for point in entry_points(group="gristmill.stages"):
        for kind, stages in point.load().items():
            if kind in found:
                raise ConfigError(f"plug-in {point.name} redefines the kind {kind}", "Rename the plug-in's kind.")
            found[kind] = stages
    return found
