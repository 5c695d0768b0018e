"""Gristmill's learner, with the settings that a recipe gets unless it says otherwise."""

from __future__ import annotations

import numpy as np
import torch

from bench.train_peers.work import ALPHA, CLIP, CONTEXT, RANK, RATE, Job, Meter
from gristmill.models.lora import attach
from gristmill.train.kinds import SftConfig
from gristmill.train.learner import Learner
from gristmill.train.objective import objective_of
from gristmill.train.packing import Example, Packed, Tokens, collate


def _packed(rows: list[list[list[int]]]) -> Packed:
    samples = [np.array(ids) for row in rows for ids in row]
    return collate([Example((Tokens(ids, np.ones(len(ids), bool)),)) for ids in samples])


def main() -> None:
    job = Job.read()
    settings = {
        "kind": "train.sft", "model": "student", "context": CONTEXT, "batch": job.batch, "learning_rate": RATE,
        "clip": CLIP, "checkpointing": "off", "device": job.device, "compile": job.form or "auto",
        "lora": {"r": RANK, "alpha": ALPHA} if job.lora else None,
    }  # fmt: skip
    config = SftConfig.model_validate(settings)
    model = job.model(torch.bfloat16 if job.lora else torch.float32)
    if config.lora:
        model = attach(model, config.lora)
    learner = Learner(model, objective_of(config), config)
    meter = Meter(job)
    meter.begin()
    rows, per_step = job.rows(), max(1, job.batch // CONTEXT)
    per_pass = 1 if job.device == "cpu" else 16  # what the memory plan chooses where there is room
    for step in range(job.steps + 1):
        given = rows[step * per_step : (step + 1) * per_step]
        parts = [_packed(given[at : at + per_pass]) for at in range(0, per_step, per_pass)]
        total = float(sum(len(part.targets) for part in parts))
        stepped = learner.step(parts, total=total, rate=RATE, seed=step)
        meter.stepped(sum(len(part.ids) for part in parts), stepped.loss)
    adapters = sorted({str(p.dtype) for p in learner.trained.values()})
    meter.tell(trained=adapters)


main()
