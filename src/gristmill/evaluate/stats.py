"""How sure an exam's comparison is: the difference of two arms on the same questions."""

from __future__ import annotations

from math import comb, sqrt
from typing import NamedTuple

from gristmill.core.intervals import Z95, Interval, wilson


class Pairs(NamedTuple):
    """Two arms on the same questions: both right, only the first, only the second, neither."""

    both: int
    first: int
    second: int
    neither: int


def sign_test(first: int, second: int) -> float:
    """Exact two-sided McNemar test: the chance of a split at least as uneven as this one if the arms were equal."""
    n = first + second
    tail = sum(comb(n, k) for k in range(min(first, second) + 1))
    return float(min(1.0, 2 * tail / 2**n))


def difference(pairs: Pairs, *, z: float = Z95) -> Interval:
    """Newcombe's square-and-add interval for share(first) - share(second) in paired data (Newcombe 1998, method 10)."""
    n = sum(pairs)
    if n == 0:
        return Interval(-1.0, 1.0)
    right1, right2 = pairs.both + pairs.first, pairs.both + pairs.second
    p1, p2 = right1 / n, right2 / n
    (low1, high1), (low2, high2) = wilson(right1, n, z=z), wilson(right2, n, z=z)
    phi = _phi(pairs)
    down = (p1 - low1) ** 2 - 2 * phi * (p1 - low1) * (high2 - p2) + (high2 - p2) ** 2
    up = (p2 - low2) ** 2 - 2 * phi * (p2 - low2) * (high1 - p1) + (high1 - p1) ** 2
    return Interval(max(-1.0, p1 - p2 - sqrt(max(0.0, down))), min(1.0, p1 - p2 + sqrt(max(0.0, up))))


def _phi(pairs: Pairs) -> float:
    """Correlation of the two arms, with Newcombe's correction for continuity where it is positive."""
    both, first, second, neither = pairs
    n = sum(pairs)
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if margins == 0:
        return 0.0
    cross = both * neither - first * second
    corrected = max(cross - n / 2, 0.0) if cross > 0 else float(cross)
    return float(corrected / sqrt(margins))
