"""What a training takes of memory, in a process of its own: `memory_peak.py MODEL CONFIG`. Prints the plan, and the
bytes by which the process grew from before the model was loaded to its peak."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from gristmill.models.load import load_model
from gristmill.models.lora import attach
from gristmill.models.weights import locate
from gristmill.train.config import TrainConfig
from gristmill.train.learner import Learner
from gristmill.train.memory import plan_memory
from gristmill.train.objective import objective_of
from gristmill.train.packing import Example, Tokens, collate


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    weights = locate(sys.argv[1], base=Path("/"))
    config = TrainConfig.model_validate(json.loads(sys.argv[2]))
    torch.set_num_threads(1)
    plan = plan_memory(config, weights)
    load_model(weights, dtype="bfloat16")  # what is imported and allocated once is no part of a training's needs
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    model = load_model(weights, dtype="bfloat16" if config.lora and config.dtype == "bf16" else "float32")
    if config.lora:
        model = attach(model, config.lora)
    config = config.model_copy(update=plan.settled())
    learner = Learner(model, objective_of(config), config)
    rng = np.random.default_rng(0)
    vocabulary = model.config.vocab_size
    row = Example((Tokens(rng.integers(3, vocabulary, config.context), np.ones(config.context, np.bool_)),))
    part = collate([row] * (plan.forward // config.context))
    parts = [part] * max(1, config.batch // len(part.ids))
    for step in range(2):
        learner.step(parts, total=sum(len(p.targets) for p in parts), rate=1e-4, seed=step)
    peak = _status("VmHWM") - before
    sys.stdout.write(json.dumps({"plan": plan.as_dict(), "peak": peak}))
