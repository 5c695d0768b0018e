"""Points over one axis: what a metric was for each value of a key. Numbers lie where they belong, all else in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import log10

from gristmill.runs.report.charts import WIDTH, svg

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 64, 16, 12, 40, 240
APART = 76
"""Pixels between two values that are written below the axis; of others the point alone is there."""

LOG_SPAN = 8
"""Largest over smallest from which numbers are laid out by their logarithms."""


@dataclass(frozen=True)
class Point:
    """One trial: the value of a key, as it is shown and as a number where it is one."""

    label: str
    x: float | None
    y: float
    tip: str
    strong: bool = False


def scatter(points: Sequence[Point], *, x_name: str, y_name: str) -> str:
    """The y axis holds what there is, and a little beyond; the best point stands out."""
    if not points:
        return ""
    places = _places(points)
    low, high = min(p.y for p in points), max(p.y for p in points)
    margin = (high - low) * 0.08 or abs(high) * 0.08 or 1.0
    low, high = low - margin, high + margin
    inner = HEIGHT - TOP - BOTTOM
    parts = [_rule(TOP + inner * i / 4, high - (high - low) * i / 4) for i in range(5)]
    written = -float(APART)
    for label, x in sorted(places.items(), key=lambda place: place[1]):
        if x - written < APART:
            continue
        written = x
        parts.append(
            f'<text class="tick" x="{x:.0f}" y="{HEIGHT - 22}" text-anchor="middle">{escape(_short(label))}</text>'
        )
    parts.append(_axis(x_name, y_name))
    for p in sorted(points, key=lambda p: p.strong):
        y = TOP + (high - p.y) / (high - low) * inner
        parts.append(
            f'<circle class="{"point strong" if p.strong else "point"}" cx="{places[p.label]:.1f}" cy="{y:.1f}" '
            f'r="{6 if p.strong else 4.5}"><title>{escape(p.tip)}</title></circle>'
        )
    return svg(HEIGHT, parts)


def _places(points: Sequence[Point]) -> dict[str, float]:
    """Where each value stands, in pixels."""
    numbers = {p.label: p.x for p in points if p.x is not None}
    labels = list(dict.fromkeys(p.label for p in sorted(points, key=lambda p: p.x or 0.0)))
    if len(numbers) < len(labels):
        at = {label: float(i) for i, label in enumerate(labels)}
    elif min(numbers.values()) > 0 and max(numbers.values()) / min(numbers.values()) >= LOG_SPAN:
        at = {label: log10(numbers[label]) for label in labels}
    else:
        at = {label: numbers[label] for label in labels}
    low, width = min(at.values()), max(at.values()) - min(at.values())
    inset = 40
    span = WIDTH - LEFT - RIGHT - 2 * inset
    return {label: LEFT + inset + (span * (x - low) / width if width else span / 2) for label, x in at.items()}


def _rule(y: float, value: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.0f}" y2="{y:.0f}"/>'
        f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{value:.4g}</text>'
    )


def _axis(x_name: str, y_name: str) -> str:
    return (
        f'<text class="tick" x="{WIDTH / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>'
        f'<text class="tick" x="{WIDTH - RIGHT}" y="{TOP + 10}" text-anchor="end">{escape(y_name)}</text>'
    )


def _short(label: str) -> str:
    return label if len(label) <= 14 else label[:13] + "…"
