"""The learning rate as a function of the step, so that there is no scheduler to save and none to resume wrongly."""

from __future__ import annotations

from math import cos, pi

from gristmill.train.config import TrainConfig


def still_rising(config: TrainConfig, steps: int) -> str:
    """What there is to say of a warm-up that is as long as the training; nothing of a shorter one."""
    if config.warmup_steps < steps:
        return ""
    return (
        f"the learning rate still rises when the training ends: warmup_steps is {config.warmup_steps}, and the "
        f"training has {steps}. The highest rate that it reaches is {rate_at(config, steps - 1, steps):.3g}, of "
        f"{config.rate:.3g}"
    )


def rate_at(config: TrainConfig, step: int, steps: int) -> float:
    """The rate of a step (from 0) of `steps`: up in a line over the warm-up, then down to `final_rate` at the last
    step."""
    if step < config.warmup_steps:
        return config.rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.rate
    done = (step - config.warmup_steps) / max(1, steps - 1 - config.warmup_steps)
    left = 1 - done if config.schedule == "linear" else (1 + cos(pi * done)) / 2
    return config.rate * (config.final_rate + (1 - config.final_rate) * left)
