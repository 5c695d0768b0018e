"""What has been paid for or computed once: answers of models, results of steps, and what every run has spent.

`Store` is the interface, `open_store` chooses what stands behind it: one SQLite file, which several processes of one
machine may share, or a PostgreSQL server that many machines share. Nothing outside this package knows SQL.
"""

from __future__ import annotations

from pathlib import Path

from gristmill.core.errors import not_installed
from gristmill.core.store.base import Store
from gristmill.core.store.types import Charge, Hold, Holder, Spent, Status

__all__ = ["Charge", "Hold", "Holder", "Spent", "Status", "Store", "open_store"]


def open_store(place: Path | str, *, hashes: Path | None = None) -> Store:
    """The store at a path, or at the address of a PostgreSQL server (`postgresql://…`, a secret).

    `hashes` is the file on this machine that remembers hashes of its files: beside the store where that is a file.
    """
    if isinstance(place, str) and place.startswith(("postgresql://", "postgres://")):
        try:
            from gristmill.core.store.postgres import PostgresStore
        except ModuleNotFoundError as error:
            raise not_installed(error, "a PostgreSQL store") or error from error
        return PostgresStore(place, hashes=hashes)
    from gristmill.core.store.sqlite import SqliteStore

    path = Path(place)
    return SqliteStore(path, hashes=hashes or path.with_name("files.db"))
