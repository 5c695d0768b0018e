"""A small world for the stages of this room: a context over given records, and short ways to write records."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from gristmill.core.errors import Reject
from gristmill.core.prompt import Prompt
from gristmill.core.records import Chunk, Message, Origin, Quote, Record, Sample
from gristmill.core.stage import Dropped


class Context:
    """What the hall gives to a step or a pass, over a fixed set of ancestors."""

    def __init__(self, ancestors: Iterable[Record] = (), *, seed: int = 7, folder: Path | None = None) -> None:
        self.stage, self.seed = "stage", seed
        self.known = {record.id: record for record in ancestors}
        self.prompts: dict[str, Prompt] = {}
        self.counts: Counter[str] = Counter()
        self.metrics: dict[str, Any] = {}
        self.run_folder = self.folder = self.base = self.cache = folder or Path("unused")

    def rng(self, record: Record, *salt: object) -> random.Random:
        return random.Random(f"{self.seed}{record.id}{salt}")

    def ancestor(self, record: Record, kind: type[Record]) -> Record | None:
        return next(iter(self.ancestors(record, kind)), None)

    def ancestors(self, record: Record, kind: type[Record]) -> list[Record]:
        queue, found = deque(record.parents), list[Record]()
        while queue:
            parent = self.known.get(queue.popleft())
            found += [parent] if isinstance(parent, kind) else []
            queue.extend(parent.parents if parent else ())
        return list({each.id: each for each in found}.values())

    def prompts_of(self, record: Record) -> tuple[Prompt, ...]:
        prompt = self.prompts.get(record.origin.prompt or "") if record.origin else None
        return (prompt,) if prompt else ()

    def count(self, **amounts: float) -> None:
        self.counts.update(amounts)  # type: ignore[arg-type]

    def warn(self, message: str) -> None:
        raise AssertionError(message)

    def metric(self, **values: Any) -> None:
        self.metrics |= values


def make_chunk(text: str, *, start: int = 100, path: str = "mill.md", language: str = "en", **more: Any) -> Chunk:
    return Chunk(
        path=path, title="The Mill", text=text, start=start, end=start + len(text), tokens=9, language=language, **more
    )


def make_quote(chunk: Chunk, text: str | None = None) -> Quote:
    words = chunk.text if text is None else text
    at = chunk.start + chunk.text.index(words)
    return Quote(text=words, start=at, end=at + len(words), path=chunk.path)


def make_qa(question: str, answer: str, chunk: Chunk, *quotes: Quote, prompt: str | None = None, **more: Any) -> Sample:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer, train=True))
    fields = {"kind": "qa", "language": chunk.language, "parents": (chunk.id,), **more}
    origin = Origin(stage="questions", prompt=prompt)
    return Sample(form="chat", messages=messages, quotes=quotes or (make_quote(chunk),), origin=origin, **fields)


def make_text(text: str, chunk: Chunk, **more: Any) -> Sample:
    fields = {"kind": "rephrase", "language": chunk.language, "parents": (chunk.id,), **more}
    return Sample(form="text", text=text, **fields)


def run_step(run: Callable[..., Any], config: Any, record: Record, ctx: Context) -> str:
    """The reason why a step drops a record; empty when it lets it through unchanged."""
    try:
        kept = asyncio.run(run(config, record, ctx))
    except Reject as reject:
        return reject.reason
    assert kept == [record]
    return ""


class Outcome:
    """What a pass kept and dropped."""

    def __init__(self, result: Iterable[Record | Dropped]) -> None:
        found = list(result)
        self.kept = [item for item in found if isinstance(item, Record)]
        self.dropped = [item for item in found if isinstance(item, Dropped)]


@pytest.fixture(scope="session")
def world() -> Any:
    """The builders above under one name."""

    class World:
        context, chunk, quote, qa, text, step, outcome = (
            Context, staticmethod(make_chunk), staticmethod(make_quote), staticmethod(make_qa),
            staticmethod(make_text), staticmethod(run_step), Outcome,
        )  # fmt: skip

    return World
