"""A process that is killed pays for nothing twice and loses nothing, whatever it was about to do with its batch."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.batch import BatchServer, batch_server

from gristmill.core.store import open_store

COUNT, SIZE = 14, 6
STEP = 0.02


@pytest.fixture(scope="module", params=["openai", pytest.param("anthropic", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest) -> Iterator[BatchServer]:
    with batch_server(request.param) as served:
        yield served


class Asker:
    """Processes over one store."""

    def __init__(self, server: BatchServer, folder: Path) -> None:
        self.server, self.store = server, folder / "store.db"
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, count: int = COUNT) -> subprocess.Popen[bytes]:
        asked = {
            "provider": self.server.provider, "url": self.server.url, "store": str(self.store), "count": count,
            "batch": {"size": SIZE, "seconds": 0.3, "poll": 0.1},
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.llm.batch_process", json.dumps(asked)]
        self.running.append(subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]))
        return self.running[-1]

    def finish(self, process: subprocess.Popen[bytes]) -> list[str]:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        return out.decode().splitlines()

    def kill_when(self, process: subprocess.Popen[bytes], ripe: Callable[[dict[str, Any]], bool]) -> None:
        until = time.monotonic() + 30
        while not ripe(self.server.stats()):
            assert time.monotonic() < until and process.poll() is None
            time.sleep(STEP)
        process.send_signal(signal.SIGKILL)
        process.communicate()

    def paid_once(self, count: int = COUNT) -> None:
        billed = self.server.stats()["billed"]
        assert sorted(billed.values()) == [1] * count
        store = open_store(self.store)
        try:
            assert store.spent("r").calls == count and store.spent("r").unanswered == 0
        finally:
            store.close()


@pytest.fixture
def asker(server: BatchServer, tmp_path: Path) -> Iterator[Asker]:
    made = Asker(server, tmp_path)
    yield made
    for process in made.running:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


PHASES: dict[str, tuple[dict[str, Any], Callable[[dict[str, Any]], bool]]] = {
    "before the hand-in": ({"taking_s": 0.3}, lambda s: bool(s["calls"]) and not s["batches"]),
    "on its way": ({"taking_s": 0.8}, lambda s: s["calls"].get("create", 0) == 1),
    "handed in, not yet known": ({"reply_s": 5.0}, lambda s: len(s["batches"]) == 1),
    "handed in, listed late": ({"reply_s": 5.0, "list_lag_s": 0.7}, lambda s: len(s["batches"]) == 1),
    "under way": ({"seconds": 1.0}, lambda s: s["calls"].get("retrieve", 0) >= 3),
    "being read": ({"line_ms": 40.0}, lambda s: bool(s["calls"].get("content") or s["calls"].get("results"))),
}


QUICK = {"handed in, not yet known"}


@pytest.mark.parametrize("phase", [p if p in QUICK else pytest.param(p, marks=pytest.mark.slow) for p in PHASES])
def test_killed(asker: Asker, phase: str) -> None:
    options, ripe = PHASES[phase]
    asker.server.reset(**options)
    process = asker.start()
    asker.kill_when(process, ripe)
    asker.server.tune(reply_s=0.0, line_ms=0.0)
    assert len(asker.finish(asker.start())) == COUNT
    asker.paid_once()


@pytest.mark.slow
def test_killed_again_and_again(asker: Asker) -> None:
    asker.server.reset(seconds=0.4, line_ms=15.0, duplicates=0.2, p500=0.05)
    luck = random.Random(asker.server.provider)
    for _ in range(5):
        process = asker.start()
        time.sleep(luck.uniform(0.6, 2.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert len(asker.finish(asker.start())) == COUNT
    asker.paid_once()


def test_two_at_once_hand_in_each_request_once(asker: Asker) -> None:
    asker.server.reset(seconds=0.5)
    both = [asker.start(), asker.start()]
    assert [len(asker.finish(process)) for process in both] == [COUNT, COUNT]
    asker.paid_once()


@pytest.mark.slow
def test_who_waits_for_another_process_takes_over_when_that_dies(asker: Asker) -> None:
    asker.server.reset(seconds=1.5)
    first = asker.start()
    while not asker.server.stats()["calls"].get("retrieve"):
        time.sleep(STEP)
    second = asker.start()
    time.sleep(1.0)
    asker.kill_when(first, lambda _: True)
    assert len(asker.finish(second)) == COUNT
    asker.paid_once()


def test_a_stopped_run_names_its_batches_and_the_next_one_fetches_them(asker: Asker) -> None:
    asker.server.reset(seconds=2.0)
    process = asker.start(SIZE)
    while not asker.server.stats()["calls"].get("retrieve"):
        time.sleep(STEP)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    (batch,) = asker.server.stats()["batches"]
    told = asker.finish(process)
    assert time.monotonic() - began < 1.5  # nobody waits for the provider
    assert f"Cancelled: stopped; under way at the provider: batch {batch} ({SIZE} requests)" in told
    assert len(asker.finish(asker.start(SIZE))) == SIZE
    asker.paid_once(SIZE)
    assert len(asker.server.stats()["batches"]) == 1
