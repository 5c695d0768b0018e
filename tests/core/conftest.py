"""Both stores, a file and a server, for tests that must hold on either."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.core.postgres_server import PostgresServer, postgres_server

from gristmill.core.store import Store, open_store


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with postgres_server(Path(tempfile.mkdtemp(prefix="gristmill-pg-"))) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store can be opened."""
    if request.param == "sqlite":
        return str(tmp_path / "deep" / "store.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def store(place: str, tmp_path: Path) -> Iterator[Store]:
    store = open_store(place, hashes=tmp_path / "files.db")
    yield store
    store.close()
