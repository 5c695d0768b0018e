"""How sure a share is that was counted."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

Z95 = 1.959963984540054


class Interval(NamedTuple):
    low: float
    high: float


def wilson(right: int, n: int, *, z: float = Z95) -> Interval:
    """Wilson's score interval for a share (Wilson 1927). Of nothing counted, everything is possible."""
    if n == 0:
        return Interval(0.0, 1.0)
    share, z2 = right / n, z * z
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z * sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    low = 0.0 if right == 0 else max(0.0, centre - half)
    high = 1.0 if right == n else min(1.0, centre + half)
    return Interval(low, high)
