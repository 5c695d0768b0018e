"""What was found out about a server is read once, beside everything else that goes on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from gristmill.llm.providers.probe import Probe


class SlowNotes:
    def __init__(self) -> None:
        self.read = 0

    def notes(self, space: str) -> dict[str, dict[str, Any]]:
        self.read += 1
        time.sleep(0.4)
        return {"line": {"json": "object", "without": ["seed"], "settled": [], "age": 1.0}}

    async def put_note(self, space: str, name: str, data: dict[str, Any] | None) -> None:
        raise AssertionError("nothing is news")


async def test_findings_are_read_once_and_hold_up_no_loop() -> None:
    notes = SlowNotes()
    probe = Probe("line", ways=("schema", "object", "words"), optional=("seed",), notes=notes)
    recalling = asyncio.gather(*(probe.recall() for _ in range(5)))
    while not recalling.done():
        began = time.monotonic()
        await asyncio.sleep(0.01)
        assert time.monotonic() - began < 0.2
    assert (probe.traits.json, probe.traits.without, notes.read) == ("object", {"seed"}, 1)
