"""Figures as people read them: money, amounts, lengths of time."""

from __future__ import annotations

from math import floor, log10


def money(usd: float) -> str:
    """Dollars and cents; of less than ten cents as many digits as say something."""
    if usd == 0 or abs(usd) >= 0.1:
        return f"${usd:,.2f}"
    digits = 1 - floor(log10(abs(usd)))
    return f"${usd:.{digits}f}"


def amount(number: float) -> str:
    """1,204 as it is, larger ones as 12.3k and 9.1M, small rates with a digit behind the point."""
    if abs(number) >= 999_950:
        return f"{number / 1e6:.3g}M"
    if abs(number) >= 10_000:
        return f"{number / 1e3:.3g}k"
    return f"{number:,.0f}" if number == int(number) or abs(number) >= 100 else f"{number:.2g}"


def counted(number: int, what: str) -> str:
    """1 record, 2 records."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def span(seconds: float) -> str:
    """The two largest units: 3 d 4 h, 2 h 10 min, 1 min 40 s, 38 s, 0.4 s."""
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    whole = round(seconds)
    for unit, size, below, step in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            rest = whole % size // step
            return f"{whole // size} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"
