"""Limits shared by all processes of a workspace that use the same line (provider, model and key)."""

from __future__ import annotations

from gristmill.core.store import Store
from gristmill.llm.limiter import Limiter


class Shares:
    """One per client. A line joins before its first request; `close` gives its shares back."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def join(self, line: str, limiter: Limiter) -> None:
        """Take part in the line's limits: returns when this process may send. `line` holds no secret."""

    async def close(self) -> None:
        """Give back what this process held."""
