"""The columns that rows must have."""

from __future__ import annotations

from collections.abc import Iterable

from gristmill.core.errors import ConfigError


def require(wanted: Iterable[str], before: frozenset[str] | None) -> None:
    """ConfigError for columns that no row can have. None: nobody can know their columns yet."""
    if before is not None and (unknown := set(wanted) - before):
        known = f"They have: {', '.join(sorted(before))}."
        raise ConfigError(f"the rows have no {', '.join(sorted(unknown))}", known)
