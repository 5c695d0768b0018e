"""The tables of a store's SQLite file, and how a file of an older layout becomes one of this.

Keys are sha256 digests, kept as their 32 bytes. Answers and results lie in the order they came, so that writing one
appends; beside them lies an index by key. That of results holds the status too: which records are done is read from
it alone. What an answer cost is in the ledger, one line per run, stage and role.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from pathlib import Path

from gristmill.core.errors import ConfigError

VERSION = 2
BUSY_SECONDS = 60
CACHE_KIB = 2 << 10  # of the writing connection; the system's own cache does the rest
READER_CACHE_KIB = 1 << 10  # of each thread that reads: keys come without an order, so more would hold little more
PAGE = 2048  # bytes; an index by digests touches one page for every key that comes, whatever the page holds
WAL_PAGES = 8000  # the longer the log, the less often the pages of the indexes are written to their places

_TABLES = """
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY, run TEXT NOT NULL, stage TEXT NOT NULL, role TEXT NOT NULL, calls INTEGER NOT NULL,
    tokens_in INTEGER NOT NULL, tokens_out INTEGER NOT NULL, tokens_cached INTEGER NOT NULL,
    tokens_reasoning INTEGER NOT NULL, nano_usd INTEGER NOT NULL, unanswered INTEGER NOT NULL,
    UNIQUE (run, stage, role));
CREATE TABLE responses (key BLOB PRIMARY KEY, payer INTEGER NOT NULL REFERENCES ledger, data BLOB NOT NULL);
CREATE TABLE results (key BLOB NOT NULL, status INTEGER NOT NULL, value BLOB NOT NULL);
CREATE UNIQUE INDEX results_key ON results (key, status);
CREATE TABLE holds (
    run TEXT PRIMARY KEY, calls INTEGER NOT NULL, tokens INTEGER NOT NULL, nano_usd INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE notes (
    space TEXT NOT NULL, name TEXT NOT NULL, data BLOB NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (space, name)) WITHOUT ROWID;
"""

_FROM_1 = """
ALTER TABLE responses RENAME TO old_responses;
ALTER TABLE results RENAME TO old_results;
{tables}
INSERT INTO ledger (run, stage, role, calls, tokens_in, tokens_out, tokens_cached, tokens_reasoning, nano_usd,
                    unanswered)
    SELECT run, stage, role, count(*), sum(usage_in), sum(usage_out), 0, 0, 0, 0
    FROM old_responses GROUP BY run, stage, role;
INSERT INTO responses (key, payer, data)
    SELECT packed(r.key), l.id, r.data FROM old_responses r JOIN ledger l USING (run, stage, role) ORDER BY r.rowid;
INSERT INTO results (key, status, value)
    SELECT packed(key), CASE substr(value, 1, 10) WHEN CAST('{{"failure"' AS BLOB) THEN 2
                        ELSE substr(value, 1, 9) = CAST('{{"reject"' AS BLOB) END, value
    FROM old_results ORDER BY rowid;
DROP TABLE old_responses;
DROP TABLE old_results;
DROP TABLE files;
"""


def packed(key: str) -> bytes:
    """A key as its 32 bytes; one that is no digest goes by its own."""
    if len(key) == 64:
        try:
            place = bytes.fromhex(key)
        except ValueError:
            place = b""
        if len(place) == 32:
            return place
    return hashlib.sha256(key.encode()).digest()


def connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA page_size = {PAGE}")  # counts for a new file alone
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    connection.execute("PRAGMA temp_store = MEMORY")  # a statement of many rows keeps what it may have to undo
    connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
    return connection


def open_file(path: Path) -> sqlite3.Connection:
    """The writing connection: makes the tables in a new file, renews those of an older one, refuses a newer one."""
    try:
        connection = connect(path)
        _use_wal(connection)
        version = _renew(connection)
    except sqlite3.Error as error:
        raise ConfigError(
            f"the store {path} cannot be opened: {error}",
            "Check the path and its permissions, or choose another workspace.",
        ) from error
    if version > VERSION:
        connection.close()
        raise ConfigError(
            f"the store {path} was made by a newer version of gristmill (layout {version}, this one knows {VERSION})",
            "Update gristmill, or choose another workspace.",
        )
    return connection


def _renew(connection: sqlite3.Connection) -> int:
    """Bring the tables to this layout, in one transaction; gives the layout found where it is newer."""
    version = _version(connection)
    if version >= VERSION:
        return version
    connection.create_function("packed", 1, packed, deterministic=True)
    connection.execute("BEGIN IMMEDIATE")  # another process may be doing the same: look again
    try:
        version = _version(connection)
        if version < VERSION:
            script = _TABLES if version == 0 else _FROM_1.format(tables=_TABLES)
            for statement in script.split(";\n"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        connection.close()  # which rolls back
        raise
    return max(version, VERSION)


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _use_wal(connection: sqlite3.Connection) -> None:
    """Two processes that open a new file at once collide here, and SQLite does not wait by itself for this change."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
