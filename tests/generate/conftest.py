"""A chunk of an invented document, and a context whose model is the real client at the fake server."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tests.fakes.fixtures import FakeServer, fake_server

from gristmill.core.ask import Model
from gristmill.core.prompt import Prompt, read_prompt
from gristmill.core.records import Chunk, Document, Page, Record, digest_of
from gristmill.core.store import open_store
from gristmill.llm.client import Client
from gristmill.llm.spec import OpenAISpec

R = TypeVar("R", bound=Record)
PROMPTS = Path(__file__).parents[2] / "src" / "gristmill" / "generate" / "prompts"

BEFORE = "A page that is about something else entirely.\n\n"
TEXT = (
    "The lighthouse at Varn was built between 1818 and 1822 by the engineer Edda Moor. Its tower is 41 metres tall and "
    "stands on a rock called the Gull's Table. The first keeper, Tam Hale, lit the lamp on 3 May 1822. The library of "
    "Varn holds 912 maps. The Salt Court was founded in 1640 and meets every Thursday."
)
DOCUMENT = Document(
    path="varn.md",
    title="The Varn Lighthouse",
    text=BEFORE + TEXT,
    language="en",
    media_type="text/markdown",
    pages=(
        Page(number=1, start=0, end=len(BEFORE) + 100),
        Page(number=2, start=len(BEFORE) + 100, end=len(BEFORE + TEXT)),
    ),
)


def chunk_of(text: str = TEXT, *, language: str = "en", start: int = len(BEFORE)) -> Chunk:
    return Chunk(
        path=DOCUMENT.path,
        title=DOCUMENT.title,
        text=text,
        start=start,
        end=start + len(text),
        pages=(1, 2),
        headings=("History",),
        sentences=tuple(hit.span() for hit in re.finditer(r"\S.*?[.](?=\s|$)", text)),
        tokens=len(text) // 4,
        language=language,
        parents=(DOCUMENT.id,),
    )


class Context:
    """What a step may reach, over records in memory."""

    stage = "questions"
    seed = 7

    def __init__(self, model: Model | None, *records: Record) -> None:
        self._model = model
        self._records = {record.id: record for record in (DOCUMENT, *records)}
        self.counts: Counter[str] = Counter()
        self.rendered: list[str] = []

    def rng(self, record: Record, *salt: object) -> random.Random:
        return random.Random(digest_of([self.seed, record.id, [str(each) for each in salt]]))

    def ancestor(self, record: Record, kind: type[R]) -> R | None:
        for parent in (self._records.get(each) for each in record.parents):
            found = parent if isinstance(parent, kind) else parent and self.ancestor(parent, kind)
            if found:
                return found
        return None

    def ancestors(self, record: Record, kind: type[R]) -> list[R]:
        found: dict[str, Record] = {}
        left = list(record.parents)
        while left:
            parent = self._records.get(left.pop(0))
            if parent is not None and parent.id not in found:
                found[parent.id] = parent
                left += parent.parents
        return [each for each in found.values() if isinstance(each, kind)]

    def model(self, role: str, *, quantization: str | None = None) -> Model:
        assert self._model is not None, f"no model here ({role}, {quantization})"
        return self._model

    def prompt(self, name: str) -> Prompt:
        return read_prompt(name, PROMPTS / f"{name}.md")

    def prompts_of(self, record: Record) -> tuple[Prompt, ...]:
        return () if record.origin is None else (self.prompt(str(record.origin.prompt).partition("@")[0]),)

    def count(self, **amounts: float) -> None:
        self.counts.update(amounts)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def writer_server() -> Iterator[FakeServer]:
    with fake_server() as server:
        yield server


@pytest.fixture
def fake(writer_server: FakeServer) -> FakeServer:
    writer_server.reset(pinvalid=0, plength=0, finish="", bad_until_turns=2)
    return writer_server


@pytest.fixture
async def model(tmp_path: Path, fake: FakeServer) -> AsyncIterator[Model]:
    store = open_store(tmp_path / "store.db")
    client = Client(store, workspace=tmp_path, run="r")
    spec: Any = OpenAISpec(provider="openai", model="m", base_url=fake.url)
    yield client.model("writer", spec, stage="questions")
    await client.close()
    store.close()
