"""Faults × kills × limits, drawn by hypothesis: whatever the schedule, no row is lost, none comes twice.

One schedule is a server's faults, a line's limits, a few budgets that pause the run, a few moments at which the process
is killed with SIGKILL. The same command is given until the run is finished. What was asked is counted at the server.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.fakes.fixtures import FakeServer, fake_server
from tests.runs.project import Project

ROOMY = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking would start hundreds of processes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FINISHED, FAILED_ROWS, PAUSED = 0, 4, 7
WORD_OF_THE_DOOMED = "unspeakable"


@dataclass(frozen=True)
class Schedule:
    rows: int
    concurrency: int | None
    rpm: int | None
    faults: dict[str, float]
    doomed: frozenset[int]  # rows that the server refuses for ever
    kills: tuple[float, ...]  # after which share of the rows has been answered
    budgets: tuple[float, ...]  # calls, as shares of the rows: each pauses the run, the last is lifted


def faults() -> st.SearchStrategy[dict[str, float]]:
    shares = {"p429": 0.3, "p500": 0.15, "pbadjson": 0.1, "phang": 0.04}
    return st.fixed_dictionaries({name: st.sampled_from([0.0, most / 3, most]) for name, most in shares.items()})


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    rows = draw(st.integers(5, 60))
    share = st.floats(0.05, 0.9)
    return Schedule(
        rows=rows,
        concurrency=draw(st.sampled_from([1, 4, 16, None])),
        rpm=draw(st.sampled_from([None, None, 6000])),
        faults=draw(faults()),
        doomed=frozenset(draw(st.lists(st.integers(0, rows - 1), max_size=2))),
        kills=tuple(sorted(draw(st.lists(share, max_size=3)))),
        budgets=tuple(sorted(draw(st.lists(share, max_size=2)))),
    )


class Story:
    """One schedule, lived through."""

    def __init__(self, schedule: Schedule, project: Project, fake: FakeServer) -> None:
        self.schedule = schedule
        self.project = project
        self.fake = fake
        self.may_repeat = 0
        rows = [self.text(number) for number in range(schedule.rows)]
        project.write("rows.jsonl", "".join(json.dumps({"n": n, "text": text}) + "\n" for n, text in enumerate(rows)))
        project.write("recipe.yaml", json.dumps(self.recipe()))  # JSON is YAML

    def text(self, number: int) -> str:
        doomed = f" It is {WORD_OF_THE_DOOMED}." if number in self.schedule.doomed else ""
        return f"Parcel number {number} lies on shelf {number * 7}.{doomed}"

    def recipe(self) -> dict[str, Any]:
        writer = {"provider": "openai", "base_url": self.fake.url, "model": "m", "timeout": 0.6}
        limits = {"concurrency": self.schedule.concurrency, "rpm": self.schedule.rpm}
        writer |= {name: value for name, value in limits.items() if value is not None}
        ask = {"kind": "generate.ask", "model": "writer", "prompt": "Say where it lies: {{text}}", "max_tokens": 50}
        stages = {"rows": {"kind": "ingest.rows", "paths": ["rows.jsonl"]}, "ask": {**ask, "max_failures": 1.0}}
        return {"name": "story", "models": {"writer": writer}, "stages": stages}

    def answered(self) -> dict[str, int]:
        return dict(self.fake.stats()["answered"])

    def repeats(self) -> int:
        answered = self.answered()
        return sum(answered.values()) - len(answered)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.project.command("run", self.project.folder / "recipe.yaml", "--json", *arguments),
            env={**os.environ, "GRISTMILL_WORKSPACE": str(self.project.workspace)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill_after(self, answers: int) -> None:
        """Let it run until the server has given so many answers; it may also end before."""
        process = self.start()
        end = time.monotonic() + 90
        while process.poll() is None and sum(self.answered().values()) < answers and time.monotonic() < end:
            time.sleep(0.004)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            most = int(self.fake.stats()["max_in_flight"])
            self.may_repeat += most + most // 2  # in flight, and answered but not yet durable
        process.communicate()

    def go(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        assert process.returncode in (FINISHED, FAILED_ROWS, PAUSED), f"exit {process.returncode}\n{out}\n{err}"
        return process.returncode, json.loads(out)

    def live(self) -> dict[str, Any]:
        for share in self.schedule.budgets:
            calls = max(1, int(share * self.schedule.rows))
            self.go("--set", f"budget.calls={calls}")
            assert sum(self.answered().values()) <= calls, "a budget was overrun"
        for share in self.schedule.kills:
            self.kill_after(int(share * self.schedule.rows))
        code, outcome = self.go()
        for _ in range(3):  # rows whose every attempt met a fault are asked again by the next run
            if code == FINISHED:
                break
            code, outcome = self.go()
        assert code == FINISHED, outcome
        return outcome

    def check(self, outcome: dict[str, Any]) -> None:
        given = [json.loads(row["body"])["data"] for row in self.project.records(outcome, "ask")]
        want = [n for n in range(self.schedule.rows) if n not in self.schedule.doomed]
        assert [row["n"] for row in given] == want, "every row that can be answered, once, in its order"
        for row in given:
            assert row["answer"], "an error is never an answer"
            numbers = {int(word.strip(".")) for word in row["answer"].split() if word.strip(".").isdigit()}
            assert numbers <= {row["n"], row["n"] * 7}, "the answer of this row, not of another"
        rejects = self.project.rejects(outcome, "ask")
        assert len(rejects) == len(self.schedule.doomed)
        assert all("context length" in reject["detail"] for reject in rejects), "with the provider's own words"
        torn = int(self.fake.stats()["torn"])  # billed, and of no use to anyone
        assert self.repeats() - torn <= self.may_repeat, "answers that were there were asked for again"


def tell(schedule: Schedule, folder: Path) -> None:
    project = Project(folder)
    with fake_server(latency_ms=15, retry_after=0.1, refuse=WORD_OF_THE_DOOMED, **schedule.faults) as fake:
        story = Story(schedule, project, fake)
        story.check(story.live())


def test_everything_at_once(tmp_path: Path) -> None:
    every = {"p429": 0.1, "p500": 0.1, "pbadjson": 0.05, "phang": 0.02}
    tell(Schedule(40, 4, None, every, frozenset({7}), (0.5,), (0.3,)), tmp_path)


@pytest.mark.slow
def test_any_schedule(tmp_path_factory: pytest.TempPathFactory) -> None:
    @given(schedules())
    @settings(ROOMY, max_examples=25)
    def any_schedule(schedule: Schedule) -> None:
        tell(schedule, tmp_path_factory.mktemp("story"))

    any_schedule()
