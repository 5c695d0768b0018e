"""A client with a store of its own, and the fake server it asks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer, fake_server

from gristmill.core.ask import Model
from gristmill.core.records import Message
from gristmill.core.store import open_store
from gristmill.llm.client import Client
from gristmill.llm.spec import OpenAISpec


@pytest.fixture(scope="session")
def one_server() -> Iterator[FakeServer]:
    with fake_server() as server:
        yield server


@pytest.fixture
def fake(one_server: FakeServer) -> FakeServer:
    one_server.fresh(retry_after=0.05)
    return one_server


@pytest.fixture
async def make_client(tmp_path: Path) -> AsyncIterator[Callable[..., Client]]:
    """Clients over one store; all closed at the end."""
    store = open_store(tmp_path / "store.db")
    made: list[Client] = []

    def make(**options: Any) -> Client:
        made.append(Client(store, workspace=tmp_path, **{"run": "r", **options}))
        return made[-1]

    yield make
    for client in made:
        await client.close()
    store.close()


@pytest.fixture
def model(make_client: Callable[..., Client], fake: FakeServer) -> Callable[..., Model]:
    """A model of a new client at the fake server; arguments are the spec's, and the client's under `client`."""

    def make(*, stage: str = "qa", client: Client | None = None, **spec: Any) -> Model:
        spec = {"provider": "openai", "model": "m", "base_url": fake.url, **spec}
        return (client or make_client()).model("writer", OpenAISpec(**spec), stage=stage)

    return make


def user(text: str) -> list[Message]:
    return [Message(role="user", content=text)]
