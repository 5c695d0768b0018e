"""How many processes share a training changes nothing of what is learned: two give the losses of one to 1e-6 relative
in fp32, take up each other's checkpoints, and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.core.errors import Cancelled, ConfigError, GristmillError
from gristmill.train.learner import Learner
from gristmill.train.objective import objective_of
from gristmill.train.packing import Example, Packed, Tokens, collate
from gristmill.train.parallel import Ranks
from gristmill.train.run import run

Make = Callable[..., Any]
SHARED = {"dtype": "fp32", "forward": 128, "steps": 6, "save_every": 2}
"""Two passes a step, so that each of two processes has one."""


def _parts(count: int) -> list[Packed]:
    rng = np.random.default_rng(count)
    lengths = rng.integers(4, 40, count)
    return [collate([Example((Tokens(rng.integers(3, 400, n), np.ones(n, np.bool_)),))]) for n in lengths]


@given(passes=st.integers(1, 40), world=st.integers(1, 9))
def test_every_pass_is_read_once_and_all_exchange_equally_often(passes: int, world: int) -> None:
    parts = _parts(passes)
    shares = [Ranks(rank, world).share(parts) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    read = [one.index for share in shares for one in share if one.weight]
    assert sorted(read) == list(range(passes))
    assert all(one.weight in (0.0, 1.0) for share in shares for one in share)


@settings(max_examples=5, deadline=None)
@given(passes=st.integers(1, 5), world=st.integers(2, 4))
def test_the_shares_add_up_to_the_step(passes: int, world: int, model_folder: Path, config: Make) -> None:
    """Gradients over all shares are those of the whole step, dropout included: it is drawn by pass."""
    parts = _parts(passes)
    total = float(sum(len(part.targets) for part in parts))
    alone = _gradients(model_folder, config, [(index, part, 1.0) for index, part in enumerate(parts)], total)
    dealt = [one for rank in range(world) for one in Ranks(rank, world).share(parts)]
    shared = _gradients(model_folder, config, [(one.index, one.part, one.weight) for one in dealt], total)
    for name, grad in alone.items():
        torch.testing.assert_close(shared[name], grad, rtol=1e-5, atol=1e-7)


def _gradients(folder: Path, config: Make, passes: list[Any], total: float) -> dict[str, torch.Tensor]:
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attention_dropout=0.1)
    settled = config(lora=None, dtype="fp32")
    learner = Learner(model, objective_of(settled), settled)
    model.train()
    for index, part, weight in passes:
        torch.manual_seed(100 + index)
        loss = learner.reading(part, lambda said: learner.objective.loss(said, total=total, estimate=0.0).value)
        (loss * weight).backward()
    return {name: p.grad.clone() for name, p in learner.trained.items() if p.grad is not None}


def _train(ctx: Any, config: Make, samples: Make, **changes: Any) -> list[float]:
    list(run(config(**SHARED, **changes), samples(20), ctx))
    return list(ctx.losses)


def test_two_processes_give_the_losses_of_one(context: Make, config: Make, samples: Make) -> None:
    one, two = context("one"), context("two")
    expected = _train(one, config, samples)
    shared = _train(two, config, samples, processes=2)
    assert shared == pytest.approx(expected, rel=1e-6)
    norms = [[m["grad_norm"] for m in ctx.metrics if "grad_norm" in m] for ctx in (one, two)]
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    assert (two.folder / "final" / "model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    "changes",
    [
        {"lora": None, "eval_every": 2},
        {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}},
        {"lora": None, "checkpointing": "on"},
        {"lora": {"r": 4, "alpha": 8}, "kind": "train.dpo", "batch": 512, "forward": 256},
        {"lora": {"r": 4, "alpha": 8}, "kind": "train.kto"},
        {"lora": {"r": 4, "alpha": 8}, "kind": "train.reward", "context": 256, "batch": 512, "forward": 256},
    ],
    ids=["full", "lora-dropout", "checkpointing", "dpo", "kto", "reward"],
)
def test_two_processes_give_the_losses_of_one_in_any_way(
    strategy: str, changes: dict[str, Any], context: Make, config: Make, taught: Make
) -> None:
    changes = SHARED | {"kind": "train.sft"} | changes
    told = []
    for name, shared in (("one", {}), ("two", {"processes": 2, "strategy": strategy})):
        ctx = context(name)
        given = [
            sample.marked(split="validation") if at % 5 == 4 else sample
            for at, sample in enumerate(taught(changes["kind"]))
        ]
        list(run(config(**changes, **shared), given, ctx))
        told.append([m["loss"] for m in ctx.metrics if "loss" in m] + [m.get("eval_loss") for m in ctx.metrics])
    known = [[value for value in each if value is not None] for each in told]
    assert known[1] == pytest.approx(known[0], rel=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on(
    before: int, after: int, strategy: str, context: Make, config: Make, samples: Make
) -> None:
    expected = _train(context("whole"), config, samples, lora=None)
    broken = context("broken", stop_after=3)
    with pytest.raises(Cancelled):
        _train(broken, config, samples, lora=None, processes=before, strategy=strategy)
    again = context("broken")
    losses = _train(again, config, samples, lora=None, processes=after, strategy=strategy)
    done = next(m["resumed_step"] for m in again.metrics if "resumed_step" in m)
    assert done == len(broken.losses) < 6
    assert losses == pytest.approx(expected[done:], rel=1e-6)
    assert any(f"processes {after} instead of {before}" in said for said in again.warnings)


@pytest.mark.slow
def test_a_killed_process_is_an_error_and_the_next_start_goes_on(context: Make, config: Make, samples: Make) -> None:
    expected = _train(context("whole"), config, samples)
    killed = context("killed", on_metric=lambda values: _kill_one() if values.get("step") == 4 else None)
    with pytest.raises(GristmillError, match=r"process \d of 2 was killed by signal 9") as raised:
        _train(killed, config, samples, processes=2)
    assert "memory" in raised.value.hint
    assert not _workers(), "nobody is left behind"
    again = context("killed")
    losses = _train(again, config, samples, processes=2)
    assert losses == pytest.approx(expected[-len(losses) :], rel=1e-6)
    assert len(losses) < 6


def _workers() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [one for one in found if "gristmill.train.worker" in one.cmdline() and "RANK" in one.environ()]


def _kill_one() -> None:
    workers = [one for one in _workers() if one.environ()["RANK"] == "1"]
    os.kill(workers[0].pid, signal.SIGKILL)


@pytest.mark.slow
def test_a_job_that_was_left_can_be_gone_on_with_by_hand(context: Make, config: Make, samples: Make) -> None:
    """As on several machines: stopped, trained to its end with torchrun, and written by the next start."""
    expected = _train(context("whole"), config, samples)
    with pytest.raises(Cancelled):
        _train(stopped := context("hand", stop_after=1), config, samples, processes=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3"]
    job = [*command, "-m", "gristmill.train.worker", str(stopped.folder / "job.json"), "--alone"]
    done = subprocess.run(job, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    losses = [line["metric"]["loss"] for line in told if "loss" in line.get("metric", {})]
    assert losses == pytest.approx(expected[-len(losses) :], rel=1e-6)
    again = context("hand")
    assert _train(again, config, samples, processes=2) == []
    assert next(m["resumed_step"] for m in again.metrics if "resumed_step" in m) == 6
    assert (again.folder / "final" / "model.safetensors").is_file()


@pytest.mark.slow
def test_an_error_of_a_process_is_the_error_of_the_training(context: Make, config: Make, samples: Make) -> None:
    with pytest.raises(ConfigError, match="gradient is no longer finite"):
        _train(context(), config, samples, lora=None, processes=2, learning_rate=1e30, warmup_steps=0)


@pytest.mark.slow
def test_workers_end_when_their_parent_is_gone(tmp_path: Path, model_folder: Path) -> None:
    """A killed parent leaves nobody who writes into the folder that the next start goes on in."""
    folder = tmp_path / "orphans"
    folder.mkdir()
    told = json.dumps({**SHARED, "steps": 100_000, "processes": 2})
    one_run = Path(__file__).with_name("one_run.py")
    parent = subprocess.Popen([sys.executable, str(one_run), str(folder), str(model_folder), told, "1"])
    seen: set[int] = set()
    watched = psutil.Process(parent.pid)
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.1):
            try:
                seen.update(one.pid for one in watched.children(recursive=True))
            except psutil.NoSuchProcess:
                return

    threading.Thread(target=look, daemon=True).start()
    assert parent.wait(120) == -signal.SIGKILL
    stop.set()
    assert len(seen) >= 3  # torchrun and two workers
    deadline = time.monotonic() + 30
    while any(psutil.pid_exists(pid) for pid in seen) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not [pid for pid in seen if psutil.pid_exists(pid)]


def test_what_cannot_be_sharded_is_refused_when_the_recipe_is_read(config: Make) -> None:
    for changes in ({"optimizer": "adamw_8bit"}, {"lora": {"base": "nf4"}}, {"new_tokens": ["<|note|>"]}):
        with pytest.raises(ValueError, match="cannot be sharded: set strategy: ddp"):
            config(processes=2, strategy="fsdp", **changes)
    config(processes=2, strategy="fsdp", lora=None, new_tokens=["<|note|>"])
