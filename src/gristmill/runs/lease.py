"""A run belongs to one process at a time: in its folder, and on every machine that shares its store.

The folder's lock is exact on one machine. Two machines have two folders, and one ledger: without the store's claim each
would take what the other has in flight for what a killed attempt left behind, and both would pay for everything.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from gristmill.core.store import Holder, Store
from gristmill.runs.folder import RunFolder


def leased(folder: RunFolder, store: Store) -> AbstractContextManager[None]:
    """For who holds the folder, and is about to pay or to write: hold the run on all machines."""
    return store.claim(folder.path.name, Holder.this())
