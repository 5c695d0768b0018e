"""Tables as lines that stand on their own: a row is quoted alone later, so it says what its cells mean.

With a header a row reads "Name: Oak Bridge; Length: 42 m." Without one, two columns read "Length: 42 m", more read
"a | b | c".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_DIGIT = re.compile(r"\d")


def looks_like_header(rows: Sequence[Sequence[str]]) -> bool:
    """An unmarked first row is a header when it has three columns or more, all filled, all different, without a
    digit."""
    first = rows[0]
    return (
        len(rows) > 1
        and len(first) >= 3
        and all(first)
        and len(set(first)) == len(first)
        and not any(_DIGIT.search(cell) for cell in first)
    )


def table_text(rows: Sequence[Sequence[str]], *, header: bool | None = None) -> str:
    """One line a row. `header`: whether the first row names the columns; None: judge by its look."""
    rows = [row for row in rows if any(row)]
    if not rows:
        return ""
    if header is None:
        header = looks_like_header(rows)
    if not header or len(rows) == 1:
        return "\n".join(_plain(row) for row in rows)
    return "\n".join(_named(rows[0], row) for row in rows[1:])


def _plain(row: Sequence[str]) -> str:
    cells = [cell for cell in row if cell]
    return ": ".join(cells) if len(row) == 2 else " | ".join(cells)


def _named(names: Sequence[str], row: Sequence[str]) -> str:
    padded = [*names, *[""] * (len(row) - len(names))]
    cells = [f"{name}: {cell}" if name else cell for name, cell in zip(padded, row, strict=False) if cell]
    return "; ".join(cells)
