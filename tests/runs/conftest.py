from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.fixtures import FakeServer, fake_server
from tests.runs.project import PLACES, Project


@pytest.fixture(scope="session")
def _fake() -> Iterator[FakeServer]:
    with fake_server() as fake:
        yield fake


@pytest.fixture
def fake(_fake: FakeServer) -> FakeServer:
    """The fake server, its counts at zero and no faults."""
    _fake.fresh()
    return _fake


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Four documents, no recipe yet."""
    project = Project(tmp_path)
    project.add(*PLACES[:4])
    return project
