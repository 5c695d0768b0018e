"""Checkpoints of a training that goes on: what they hold, which one is taken up again, which ones are let go.

A checkpoint holds the trained tensors, the optimiser, and in its manifest the progress, the packing plan's hash and
the identity of the training: samples, config, base weights, template. There is no generator or scheduler state to
keep: dropout, order and learning rate are functions of (seed, step).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.models import checkpoint
from gristmill.models.state import load_optimizer, load_tensors, save_optimizer, save_tensors
from gristmill.train.learner import Learner
from gristmill.train.loop import Course, Progress

WEIGHTS = "trained.safetensors"


@dataclass(frozen=True)
class CheckpointKeeper:
    """Keeps the last `keep` checkpoints under `root`, and the best one."""

    root: Path
    identity: dict[str, Any]
    course: Course
    keep: int
    say: Callable[..., None]  # ctx.metric: whatever was skipped is said

    def save(self, learner: Learner, progress: Progress) -> None:
        metadata = {
            "step": progress.step,
            "identity": self.identity,
            "plan": self.course.plan_hash(progress.step),
            "progress": progress.as_dict(),
        }
        with checkpoint.staged(self._folder(progress.step), metadata=metadata) as folder:
            save_tensors(folder / WEIGHTS, learner.weights())
            save_optimizer(folder, learner.optimizer)
        best = [] if progress.best_step is None else [self._folder(progress.best_step)]
        checkpoint.keep_last(self.root, self.keep, written=self._folder(progress.step), spare=best)

    def restore(self, learner: Learner) -> Progress:
        """Take up the newest whole checkpoint of this very training; from the beginning when there is none."""
        newest = checkpoint.newest_valid(self.root)
        for skipped in newest.skipped:
            self.say(skipped_checkpoint=skipped.folder.name, why=skipped.why)
        if newest.folder is None or newest.manifest is None:
            return Progress()
        metadata = newest.manifest.metadata
        progress = Progress(**metadata["progress"])
        if metadata["identity"] != self.identity or metadata["plan"] != self.course.plan_hash(progress.step):
            self.say(skipped_checkpoint=newest.folder.name, why="it belongs to a training on other samples or settings")
            shutil.rmtree(self.root)
            return Progress()
        learner.load(load_tensors(newest.folder / WEIGHTS))
        load_optimizer(newest.folder, learner.optimizer)
        self.say(resumed_from=newest.folder.name, resumed_step=progress.step)
        return progress

    def restore_best(self, learner: Learner, progress: Progress) -> None:
        """Put the best weights back, once their checkpoint has been verified."""
        folder = self._folder(progress.best_step or 0)
        checkpoint.verify(folder)
        learner.load(load_tensors(folder / WEIGHTS))

    def clear(self) -> None:
        """The final weights are whole: there is nothing left to go on with."""
        shutil.rmtree(self.root, ignore_errors=True)

    def _folder(self, step: int) -> Path:
        return self.root / f"step-{step:06d}"
