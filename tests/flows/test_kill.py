"""kill -9, twenty times over every stage, training included; the same command each time. Counted at the server.

Nothing is lost, nothing durable is asked for again, and what comes out is, to the byte, what an undisturbed run gives.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from tests.fakes.fixtures import FakeServer, fake_server
from tests.runs.project import PLACES, Project, stage_bytes
from tests.train.conftest import make_model_folder

from gristmill.core.events import read_events

pytestmark = pytest.mark.slow
WIDTH = 4
STEPS = 30


@dataclass(frozen=True)
class Moment:
    """When to kill: once `reached` holds, after a little while more."""

    name: str
    reached: Callable[[], bool]


class Killer:
    """Starts the run again and again, and kills it at each moment in turn."""

    def __init__(self, project: Project, fake: FakeServer) -> None:
        self.project = project
        self.fake = fake
        self.rng = random.Random(5)
        self.kills: list[str] = []

    @property
    def log(self) -> Path | None:
        return next(iter(self.project.workspace.glob("runs/*/events.ndjson")), None)

    def started(self, stage: str) -> bool:
        return self.log is not None and any(
            e["event"] == "stage.started" and e["stage"] == stage for e in read_events(self.log)
        )

    def step(self, least: int) -> bool:
        return self.log is not None and any(
            e["event"] == "metric" and e.get("step", 0) >= least for e in read_events(self.log)
        )

    def answered(self, least: int) -> bool:
        return sum(self.fake.stats()["answered"].values()) >= least

    def moments(self) -> Iterator[Moment]:
        for stage in ("read.files", "read", "chunks"):
            yield Moment(stage, lambda s=stage: self.started(s))
        for least in (1, 4, 7, 10, 13, 16):
            yield Moment(f"facts, {least} answers", lambda n=least: self.answered(n))
        for stage in ("cloze", "clean", "split"):
            yield Moment(stage, lambda s=stage: self.started(s))
        for least in (1, 6, 12, 18, 25):
            yield Moment(f"tune, step {least}", lambda n=least: self.step(n))
        facts = len(self.fake.stats()["answered"])
        for more in (2, 8, 14):
            yield Moment(f"exam, {more} answers", lambda n=facts + more: self.answered(n))

    def kill_at(self, moment: Moment) -> None:
        process = subprocess.Popen(
            self.project.command("run", self.project.folder / "recipe.yaml", "--quiet"),
            env={**os.environ, "GRISTMILL_WORKSPACE": str(self.project.workspace)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._wait_for(moment, process)
            time.sleep(self.rng.uniform(0, 0.03))
            assert process.poll() is None, f"ended before it was killed at {moment.name}"
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.kills.append(moment.name)

    def repeated(self) -> int:
        """Answered calls that were asked again, so far."""
        answered = self.fake.stats()["answered"].values()
        return sum(answered) - len(answered)

    def _wait_for(self, moment: Moment, process: subprocess.Popen[bytes]) -> None:
        end = time.monotonic() + 120
        while not moment.reached():
            assert process.poll() is None, f"ended before {moment.name}"
            assert time.monotonic() < end, f"never came to {moment.name}"
            time.sleep(0.005)


def make_recipe(project: Project, fake: FakeServer) -> None:
    project.add(*PLACES)
    project.write("exam.jsonl", "".join(exam_line(place) for place in PLACES))
    folder = project.folder / "student"
    if not folder.exists():
        folder.mkdir()
        make_model_folder(folder)
    project.recipe(
        fake.url,
        models={
            "writer": {"provider": "openai", "base_url": fake.url, "model": "m", "concurrency": WIDTH},
            "student": {"provider": "local", "model": "student"},
        },
        stages={
            "split": {"kind": "curate.split", "by": "fact", "test": 0.1},
            "tune": {"kind": "train.sft", "model": "student", "steps": STEPS, "save_every": 3, "context": 128}
            | {"batch": 128, "threads": 1, "lora": {"r": 4, "alpha": 8}},
            "exam": {"kind": "evaluate.exam", "models": ["writer"], "tasks": "exam.jsonl", "needs": ["chunks", "tune"]},
        },
    )


def exam_line(place: str) -> str:
    task = {"question": f"Who built the lighthouse of {place}?", "answers": ["Harm Dekker"]}
    return json.dumps({**task, "document": f"{place.lower()}.md"}) + "\n"


def test_twenty_kills_lose_nothing_and_change_nothing(tmp_path: Path) -> None:
    with fake_server(latency_ms=150) as fake:
        project = Project(tmp_path)
        make_recipe(project, fake)
        want = stage_bytes(Path(project.go("--workspace", tmp_path / "undisturbed")["folder"]))
        asked = set(fake.stats()["answered"])

        fake.reset(latency_ms=150)
        killer = Killer(project, fake)
        repeats = [0]
        for moment in killer.moments():
            killer.kill_at(moment)
            repeats.append(killer.repeated())
        outcome = project.go()
        repeats.append(killer.repeated())
        stats = fake.stats()

    assert len(killer.kills) == 20, killer.kills
    assert outcome["state"] == "finished"
    assert set(stats["answered"]) == asked, "the same questions, none left out, none besides"
    after_each = [after - before for before, after in pairwise(repeats)]
    # Those in flight, and half as many that had come and were being committed: a slot is free before the commit.
    assert max(after_each) <= WIDTH + WIDTH // 2, f"asked again after each kill: {after_each}"
    got = stage_bytes(Path(outcome["folder"]))
    assert got.keys() == want.keys()
    different = [name for name in want if got[name] != want[name]]
    assert not different, different
    again = f"{repeats[-1]} asked again, at most {max(after_each)} after one kill"
    print(f"20 kills: {len(stats['answered'])} calls, {again}, {len(got)} files equal")
