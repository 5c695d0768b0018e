"""Small charts as inline SVG: they need no script, follow the page's colours, and print. Every value has a tooltip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 680
COLOURS = 6
"""Of lines, in page.css."""


@dataclass(frozen=True)
class Bar:
    """A share between 0 and 1 with its interval."""

    label: str
    value: float
    low: float
    high: float
    note: str
    strong: bool = False


def intervals(bars: Sequence[Bar]) -> str:
    """Horizontal bars from 0 to 100 % with whiskers."""
    left, right, row = 150, 110, 34
    span = WIDTH - left - right
    height = row * len(bars) + 24
    parts = []
    for quarter in range(5):
        x = left + span * quarter / 4
        parts.append(
            f'<line class="grid" x1="{x:.0f}" x2="{x:.0f}" y1="4" y2="{height - 18}"/>'
            f'<text class="tick" x="{x:.0f}" y="{height - 4}" text-anchor="middle">{25 * quarter} %</text>'
        )
    for i, bar in enumerate(bars):
        y = 8 + i * row
        x0, x1, x = (left + span * v for v in (bar.low, bar.high, bar.value))
        tip = f"{bar.label}: {bar.value:.1%}, 95 % interval {bar.low:.1%} to {bar.high:.1%}, {bar.note}"
        parts.append(
            f"<g><title>{escape(tip)}</title>"
            f'<text class="label" x="{left - 10}" y="{y + 15}" text-anchor="end">{escape(_label(bar.label))}</text>'
            f'<rect class="{"bar strong" if bar.strong else "bar"}" x="{left}" y="{y}" width="{max(x - left, 1):.1f}" '
            f'height="20" rx="3"/>'
            f'<path class="whisker" d="M{x0:.1f} {y + 10}H{x1:.1f}M{x0:.1f} {y + 4}v12M{x1:.1f} {y + 4}v12"/>'
            f'<text class="value" x="{left + span + 12}" y="{y + 15}">{bar.value:.0%} · {escape(bar.note)}</text></g>'
        )
    return svg(height, parts)


def curves(
    series: Mapping[str, Sequence[tuple[float, float]]], *, x_name: str, y_name: str, across: int = WIDTH
) -> str:
    """Lines over a shared x axis, from zero, or from below it where a value is; `across`: units of the drawing's
    width, which text keeps its size in."""
    points = [p for line in series.values() for p in line]
    if not points:
        return ""
    left, right, bottom = 58, 16, 34
    top = 12 + 16 * len(series)  # room for their names, clear of the lines
    height = 230 + top
    x_low, x_high = min(p[0] for p in points), max(p[0] for p in points)
    y_low = min(0.0, *(p[1] for p in points)) * 1.05
    y_high = max(0.0, *(p[1] for p in points)) * 1.05
    y_high = y_high if y_high > y_low else 1.0
    width = max(x_high - x_low, 1e-9)
    digits = 0 if width >= 4 else 2  # steps are whole numbers

    def place(x: float, y: float) -> str:
        px = left + (x - x_low) / width * (across - left - right)
        return f"{px:.1f},{top + (y_high - y) / (y_high - y_low) * (height - top - bottom):.1f}"

    parts = []
    for i in range(5):
        y, mark = top + (height - top - bottom) * i / 4, y_high - (y_high - y_low) * i / 4
        parts.append(
            f'<line class="grid" x1="{left}" x2="{across - right}" y1="{y:.0f}" y2="{y:.0f}"/>'
            f'<text class="tick" x="{left - 8}" y="{y + 4:.0f}" text-anchor="end">{_short(mark)}</text>'
        )
    for i in range(5):
        x = x_low + width * i / 4
        px = left + (across - left - right) * i / 4
        parts.append(f'<text class="tick" x="{px:.0f}" y="{height - 18}" text-anchor="middle">{x:.{digits}f}</text>')
    parts.append(f'<text class="tick" x="{across / 2}" y="{height - 2}" text-anchor="middle">{escape(x_name)}</text>')
    for n, (name, line) in enumerate(series.items()):
        i = n % COLOURS
        path = " ".join(place(x, y) for x, y in line)
        dots = "".join(
            f'<circle class="dot line{i}" cx="{place(x, y).split(",")[0]}" cy="{place(x, y).split(",")[1]}" r="{2.5}">'
            f"<title>{escape(f'{name} at {x:g}: {y:.4g}')}</title></circle>"
            for x, y in line[:: max(1, len(line) // 120)]
        )
        parts.append(f'<polyline class="line line{i}" points="{path}"/>{dots}')
        parts.append(
            f'<text class="legend line{i}" x="{across - right}" y="{12 + 16 * n}" text-anchor="end">'
            f"{escape(name)}{f' ({escape(y_name)})' if y_name else ''}</text>"
        )
    return svg(height, parts, across)


def histogram(values: Sequence[int], *, name: str, bins: int = 24) -> str:
    """Counts of values in equal bins."""
    if not values:
        return ""
    low, high = min(values), max(values)
    step = max(1, -(-(high - low + 1) // bins))
    counts = [0] * ((high - low) // step + 1)
    for value in values:
        counts[(value - low) // step] += 1
    left, height, bottom = 52, 150, 30
    width = (WIDTH - left - 16) / len(counts)
    parts = []
    for i, count in enumerate(counts):
        h = (height - bottom - 10) * count / max(counts)
        tip = f"{low + i * step} to {low + (i + 1) * step - 1} {name}: {count}"
        parts.append(
            f"<g><title>{escape(tip)}</title>"
            f'<rect class="bar" x="{left + i * width:.1f}" y="{height - bottom - h:.1f}" '
            f'width="{max(width - 1.5, 1):.1f}" height="{h:.1f}"/></g>'
        )
    for share in (0, 0.5, 1):
        x = left + share * (WIDTH - left - 16)
        mark = low + share * (high - low)
        parts.append(f'<text class="tick" x="{x:.0f}" y="{height - 14}" text-anchor="middle">{mark:.0f}</text>')
    parts.append(f'<text class="tick" x="{WIDTH / 2}" y="{height - 1}" text-anchor="middle">{escape(name)}</text>')
    parts.append(f'<text class="tick" x="{left - 8}" y="20" text-anchor="end">{max(counts)}</text>')
    return svg(height, parts)


@dataclass(frozen=True)
class Flow:
    """A stage of the funnel."""

    name: str
    taken: int
    given: int
    dropped: int
    why: str


def funnel(flows: Sequence[Flow]) -> str:
    """Per stage: what came in (light), what went out (solid), and why the rest did not."""
    left, right, row = 150, 150, 30
    span = WIDTH - left - right
    widest = max((max(f.taken, f.given) for f in flows), default=1) or 1
    parts = []
    for i, flow in enumerate(flows):
        y = 4 + i * row
        tip = f"{flow.name}: {flow.taken} in, {flow.given} out" + (f", dropped: {flow.why}" if flow.why else "")
        dropped = f" · −{flow.dropped}" if flow.dropped else ""
        parts.append(
            f"<g><title>{escape(tip)}</title>"
            f'<text class="label" x="{left - 10}" y="{y + 15}" text-anchor="end">{escape(_label(flow.name))}</text>'
            f'<rect class="ghost" x="{left}" y="{y}" width="{span * flow.taken / widest:.1f}" height="20" rx="3"/>'
            f'<rect class="bar" x="{left}" y="{y + 4}" height="12" rx="3" '
            f'width="{max(span * flow.given / widest, 1):.1f}"/>'
            f'<text class="value" x="{left + span + 12}" y="{y + 15}">{flow.taken} → {flow.given}{dropped}</text></g>'
        )
    return svg(row * len(flows) + 8, parts)


def _short(number: float) -> str:
    """A number as long as an axis has room for."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}" if abs(number) >= 0.01 else f"{number:.2g}"


def _label(text: str) -> str:
    """What fits left of a bar; the whole name stands in the tooltip."""
    return text if len(text) <= 20 else text[:19] + "…"


def svg(height: float, parts: Sequence[str], across: int = WIDTH) -> str:
    """A drawing of the page's width, or of a part of it."""
    drawn = f'<svg viewBox="0 0 {across} {height:.0f}" role="img">{"".join(parts)}</svg>'
    return f"<div class=scroll>{drawn}</div>"  # on a narrow screen it keeps its size and is moved sideways
