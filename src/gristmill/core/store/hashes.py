"""Hashes of files on this machine, remembered: a large file is read once until it changes.

Paths and inodes mean something on one machine alone, so this is a small file of its own, never shared by machines.
Losing it costs one hashing: it waits for no disk.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path

from gristmill.core.files import sha256_file

SETTLED_NS = 2_000_000_000  # a file younger than this may change again within one tick of its clock

_TABLE = """CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, inode INTEGER NOT NULL,
    sha256 TEXT NOT NULL) WITHOUT ROWID"""
_GET = "SELECT sha256 FROM files WHERE path = ? AND size = ? AND mtime_ns = ? AND inode = ?"
_PUT = "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?)"


class FileHashes:
    """`path` None remembers for this process alone."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """sha256 of a file, remembered under its path, size, modification time and inode."""
        place, before = str(path.resolve()), _fingerprint(path)
        if before is None:
            return sha256_file(path)  # which says what is wrong with it
        with self._lock, suppress(sqlite3.Error):
            row = self._open().execute(_GET, (place, *before)).fetchone()
            if row is not None:
                return str(row[0])
        digest = sha256_file(path)
        if before == _fingerprint(path) and time.time_ns() - before[1] > SETTLED_NS:
            with self._lock, suppress(sqlite3.Error):
                self._open().execute(_PUT, (place, *before, digest))
        return digest

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self._path or ":memory:", timeout=5, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(_TABLE)
            self._connection = connection
        return self._connection


def _fingerprint(path: Path) -> tuple[int, int, int] | None:
    """Size, modification time in ns, inode; None where there is no such file."""
    try:
        stat = os.stat(path)  # noqa: PTH116  (one call for all three)
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino
