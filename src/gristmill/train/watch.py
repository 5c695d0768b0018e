"""A training as it can be followed: one row a step, in two files of the stage's folder and as the run's metrics.

    metrics.ndjson    a row a line, as it was said: steps, and validations between them
    metrics.csv       the same, a column a name, for spreadsheets and dashboards
    machine.json      what it runs on, what a token costs, and the peak that `mfu` is a share of
    samples.ndjson    what the model answered on the way (`speak`)

A row is in its files before the checkpoint of its step is. Going on from a checkpoint cuts off what came after it, so
that no step is there twice or missing, whenever the training was killed.
"""

from __future__ import annotations

import time

import orjson
import torch

from gristmill.core.files import atomic
from gristmill.core.stage import PassContext
from gristmill.models.renderer import Renderer
from gristmill.train.learner import Learner, Stepped
from gristmill.train.loop import Lesson, Progress
from gristmill.train.machine import Machine
from gristmill.train.rows import MetricFiles
from gristmill.train.speak import Speaker
from gristmill.train.work import SIZE, Work, measured_peak

MACHINE = "machine.json"


class Watch:
    """What the loop tells of each step. Of several processes the first alone tells."""

    def __init__(self, learner: Learner, renderer: Renderer, ctx: PassContext, *, at: int) -> None:
        """`at`: the step that the training goes on from."""
        self.ctx = ctx
        self.learner = learner
        self.leads = learner.ranks.leads
        if not self.leads:
            return
        self.speaker = Speaker(learner, renderer, ctx.folder, at=at)
        self.machine = Machine(learner.device)
        self.work = Work.of(learner.model)
        self.files = MetricFiles(ctx.folder, at=at)
        self.peak = 0.0

    def stepped(self, progress: Progress, lesson: Lesson, stepped: Stepped, *, rate: float, seconds: float) -> None:
        """After a step: `seconds` from before its data was laid out to after its weights were changed."""
        if not self.leads:
            return
        if not self.peak:
            self._begin()
        self._say(
            step=progress.step,
            tokens=progress.tokens,
            supervised=progress.supervised,
            loss=stepped.loss,
            lr=rate,
            grad_norm=stepped.grad_norm,
            seconds=round(seconds, 4),
            tokens_per_second=round(lesson.tokens / seconds, 1),
            mfu=round(self.work.of_parts(lesson.parts) / seconds / self.peak, 4),
            **self.machine.look(),
            **stepped.metrics,
        )

    def evaluated(self, step: int, **values: float) -> None:
        """After a validation at that step."""
        if self.leads:
            self._say(step=step, **values)

    def speak(self, step: int) -> None:
        """Let the model answer, where it is due."""
        if self.leads:
            self.speaker.speak(step)

    def sync(self) -> None:
        """Before a checkpoint is written: what it goes on from is on the disk."""
        if self.leads:
            self.files.sync()

    def _say(self, **row: float | int | str) -> None:
        self.files.add({**row, "time": round(time.time(), 3)})
        self.ctx.metric(**row)

    def _begin(self) -> None:
        """At the first step, and not where there is none left: what all of it runs on."""
        config, ranks, threads = self.learner.config, self.learner.ranks, torch.get_num_threads()
        dtype = torch.bfloat16 if config.dtype == "bf16" else torch.float32
        self.peak = measured_peak(self.learner.device, dtype, threads) * ranks.world
        size, one_by_one = SIZE[self.learner.device.type], self.learner.one_by_one
        stated = {
            "device": self.machine.name(),
            "threads": threads,
            "processes": ranks.world,
            "dtype": config.dtype,
            "packed": not one_by_one,
            "peak_tflops": round(self.peak / 1e12, 3),
            "peak_measured": f"the best of the products of two {size} × {size} matrices at the start",
            "gflops_per_token": round(self.work.token / 1e9, 4),
            "gflops_per_asked": round(self.work.asked / 1e9, 4),
        }
        with atomic(self.ctx.folder / MACHINE) as file:
            file.write(orjson.dumps(stated, option=orjson.OPT_INDENT_2))
        self.ctx.metric(device=self.machine.name(), peak_tflops=round(self.peak / 1e12, 3))
        if one_by_one:
            self.ctx.warn(f"sequences are read one after the other, which is slow: {one_by_one}")
        if self.machine.missing:
            self.ctx.warn(self.machine.missing)
