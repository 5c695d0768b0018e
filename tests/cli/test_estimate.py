"""What a run will take, said before it is paid for; and that the canary that found it out is not paid for twice."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fakes.fixtures import FakeServer
from tests.runs.project import PLACES, Project

from gristmill.train.kinds import SftConfig
from gristmill.train.order import Order

PRICE = {"input": 100.0, "output": 400.0}


def recipe(project: Project, url: str, **changes: Any) -> Path:
    price = changes.pop("price", PRICE)
    writer = {"provider": "openai", "base_url": url, "model": "m", "concurrency": 4} | (
        {"price": price} if price else {}
    )
    models = {"writer": writer, **changes.pop("models", {})}
    return project.recipe(url, models=models, **changes)


def canary(project: Project, path: Path, records: int, code: int = 0) -> dict[str, Any]:
    said = project.run("check", path, "--canary", str(records), "--json", code=code).stdout
    found: dict[str, Any] = json.loads(said)
    return found["estimate"] if code == 0 else found


def between(value: float, found: list[float], slack: float = 0.0) -> bool:
    return found[0] * (1 - slack) <= value <= found[1] * (1 + slack)


def test_the_run_takes_what_the_canary_said_and_pays_nothing_twice(project: Project, fake: FakeServer) -> None:
    project.add(*PLACES)
    path = recipe(project, fake.url, budget={"usd": 50})
    free = project.run("check", path).stdout
    assert "is sound" in free and "What writer will cost is not known yet: add --canary" in free
    assert fake.stats()["calls"] == 0
    found = canary(project, path, 6)
    assert fake.stats()["calls"] == 6
    facts, clean = found["stages"]["facts"], found["stages"]["clean"]
    assert facts["kept"] == facts["tried"] == 6 and facts["records"] == [20.0, 20.0]
    assert found["total"]["calls"] == [14.0, 14.0] and found["spent"]["calls"] == 6 and found["spent"]["usd"] > 0
    assert canary(project, path, 6)["total"]["usd"] == found["total"]["usd"]
    assert not list(project.workspace.glob("estimates/*/log.ndjson"))  # nothing unusual, and nobody asked to see all
    assert fake.stats()["calls"] == 6  # told again without asking
    said = project.run("run", path)
    first = said.stderr.splitlines()[0]
    assert first.startswith("estimate of ") and "14 calls" in first and "samples" in first and "budget" not in first
    assert fake.stats()["calls"] == 20
    state = json.loads(project.run("status", "latest", "--json").stdout)
    paid = state["spent"]["usd"] - found["spent"]["usd"]
    assert state["spent"]["calls"] == 20 and between(paid, found["total"]["usd"], slack=0.15)
    given = {stage["name"]: stage["given"] for stage in state["stages"]}
    assert between(given["facts"], facts["given"], slack=0.15) and given["clean"] <= clean["given"][1] * 1.15
    done = canary(project, path, 6)
    assert done["total"]["calls"] == [0.0, 0.0] and done["stages"]["facts"]["kept"] == 20


def test_the_planner_line_names_budget_steps_and_what_cannot_be_known(project: Project, fake: FakeServer) -> None:
    project.add(*PLACES)
    student = {"provider": "local", "model": "smollm2-135m-instruct"}
    stages = {
        "tune": {"kind": "train.sft", "model": "student"},
        "exam": {"kind": "evaluate.exam", "models": ["student", "tuned"], "needs": ["clean", "tune"]},
    }
    models = {"student": student, "tuned": {"from": "tune"}}
    path = recipe(project, fake.url, stages=stages, models=models, budget={"calls": 12})
    said = project.run("check", path, "--canary", "5").stdout
    line = next(line for line in said.splitlines() if line.startswith("to come: "))
    assert "training steps (tune)" in line and "That is more than the budget of 12 calls (budget.calls)" in line
    assert "exam is not estimated: `tuned` is not trained yet." in said and "tune is not estimated: it trains" in said
    assert "Paid so far: 5 calls" in said
    assert "budget" in project.run("run", path, code=7).stderr
    assert fake.stats()["calls"] == 12


def test_a_canary_keeps_to_the_budget_and_unknown_prices_are_named(project: Project, fake: FakeServer) -> None:
    tight = recipe(project, fake.url, budget={"calls": 2})
    assert canary(project, tight, 6, code=7)["exit"] == 7
    assert fake.stats()["calls"] == 2
    found = canary(project, recipe(project, fake.url), 6)
    assert fake.stats()["calls"] == 6  # the two are not asked again
    assert found["total"]["usd"][1] > 0
    remote = recipe(project, "http://models.example.com/v1", price=None)
    assert "Nobody has said the price of writer" in project.run("check", remote).stdout
    free = recipe(project, fake.url, price=None)  # on this machine
    assert "cost" not in project.run("check", free).stdout
    assert "is not known" not in project.run("run", free).stderr


@pytest.mark.parametrize("budget", [{}, {"epochs": 2.5}, {"steps": 33}, {"tokens": 40_000}])
def test_steps_from_tokens_are_those_of_the_packing(budget: dict[str, Any]) -> None:
    config = SftConfig(kind="train.sft", model="m", context=512, batch=1024, **budget)
    rng = random.Random(3)
    lengths = np.array([rng.randint(20, 200) for _ in range(400)])
    order = Order(lengths, config.context, 0, max(1, config.batch // config.context))
    limits = {"epochs": config.epochs_or_default, "steps": config.steps, "tokens": config.tokens}
    real = order.steps_for(order.rows_for(**limits))
    assert config.steps_for(sum(lengths)) == pytest.approx(real, rel=0.03, abs=1)
