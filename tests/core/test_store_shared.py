"""Runs of several machines over one PostgreSQL store, by the command line: what one has paid for, no other pays for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.core.postgres_server import PostgresServer
from tests.fakes.fixtures import FakeServer, fake_server
from tests.runs.project import PLACES, Project

from gristmill.core.store import open_store

HIDDEN = "not-for-anyones-eyes"


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


def machine(folder: Path, fake: FakeServer) -> Project:
    project = Project(folder)
    project.add(*PLACES[:3])
    project.recipe(fake.url)
    return project


def test_a_second_machine_pays_for_nothing_and_the_address_is_written_nowhere(
    tmp_path: Path, postgres: PostgresServer, fake: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = postgres.new_database()
    monkeypatch.setenv("OUR_STORE", address.replace("postgres@", f"postgres:{HIDDEN}@"))
    monkeypatch.setenv("GRISTMILL_STORE", "env:OUR_STORE")
    one, two = machine(tmp_path / "one", fake), machine(tmp_path / "two", fake)
    first = one.go()
    asked = fake.stats()["calls"]
    second = two.go()
    assert first["state"] == second["state"] == "finished"
    assert asked == fake.stats()["calls"] > 0
    [last] = Path(first["folder"]).glob("stages/*-clean/records.parquet")
    assert last.read_bytes() == (Path(second["folder"]) / last.relative_to(first["folder"])).read_bytes()
    assert not (one.workspace / "store.db").exists()
    written = [path for p in (one, two) for path in p.workspace.rglob("*") if path.is_file()]
    assert written and all(HIDDEN.encode() not in path.read_bytes() for path in written)
    store = open_store(address)
    assert store.spent(first["run"]).calls == asked
    store.close()


@pytest.mark.parametrize("address", [f"postgresql://someone:{HIDDEN}@127.0.0.1:9/data", HIDDEN])
def test_a_store_that_cannot_be_used_is_a_clear_error(
    tmp_path: Path, fake: FakeServer, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("GRISTMILL_STORE", address)
    project = machine(tmp_path, fake)
    refused = project.run("run", project.folder / "recipe.yaml", code=2)
    assert "cannot be reached" in refused.stderr or "names no PostgreSQL server" in refused.stderr
    assert HIDDEN not in refused.stderr + refused.stdout and "Traceback" not in refused.stderr
