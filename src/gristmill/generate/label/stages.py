"""The kinds of this family and their configs."""

from __future__ import annotations

from gristmill.core import stage

STAGES: stage.STAGES = {}
