"""What a grader says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """0 is wrong, 1 is right; `reason` is short and counted."""

    value: float
    reason: str
