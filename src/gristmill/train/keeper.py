"""Checkpoints of a training that goes on: what they hold, which one is taken up again, which ones are let go.

A checkpoint holds the trained tensors, the optimiser, and in its manifest the progress, the packing plan's hash, the
identity of the training (samples, config, base weights, template) and what it ran on. There is no generator or
scheduler state to keep: dropout, order and learning rate are functions of (seed, step).

Nothing is deleted that somebody may miss: what cannot be gone on with is set aside, and said aloud.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.core.errors import CheckpointError
from gristmill.core.stage import PassContext
from gristmill.models import checkpoint
from gristmill.models.state import (
    load_optimizer,
    load_tensors,
    optimizer_tensors,
    save_optimizer,
    save_tensors,
    size_of,
)
from gristmill.train.learner import Learner
from gristmill.train.loop import Course, Progress

CHECKPOINTS, SET_ASIDE = "checkpoints", "set-aside"
WEIGHTS = "trained.safetensors"


def clear(folder: Path) -> None:
    """A stage's final weights are whole: nothing is left to go on with."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


@dataclass(frozen=True)
class CheckpointKeeper:
    """Keeps the last checkpoints of a stage, and those of its best evaluations."""

    identity: dict[str, Any]  # what makes this training the one it is
    around: dict[str, Any]  # what it runs on: threads, device, ... ; decides its last bits, not what it learns
    course: Course
    ctx: PassContext

    @property
    def root(self) -> Path:
        return self.ctx.folder / CHECKPOINTS

    def save(self, learner: Learner, progress: Progress) -> None:
        """Written by the first process, while the others wait."""
        with learner.complete():
            if learner.ranks.leads:
                self._write(learner, progress)
            learner.ranks.wait()

    def _write(self, learner: Learner, progress: Progress) -> None:
        folder = self._folder(progress.step)
        weights, optimizer = learner.weights(), learner.optimizer_state()
        metadata = {
            "step": progress.step,
            "identity": self.identity,
            "around": self.around,
            "plan": self.course.plan_hash(progress.step),
            "progress": progress.as_dict(),
        }
        size = size_of(weights.values()) + size_of(optimizer_tensors(optimizer).values())
        with checkpoint.staged(folder, metadata=metadata, size=size) as temp:
            save_tensors(temp / WEIGHTS, weights)
            save_optimizer(temp, optimizer)
        checkpoint.keep_last(self.root, self.course.config.keep, written=folder, spare=self._best(progress))

    def restore(self, learner: Learner) -> Progress:
        """Take up the newest checkpoint that this training can go on from; the beginning when there is none."""
        if learner.ranks.leads:
            newest = self._tidy()
            learner.ranks.wait()
        else:
            learner.ranks.wait()
            newest = checkpoint.newest_valid(self.root, require=self._require)
        if newest.folder is None or newest.manifest is None:
            return Progress()
        learner.load(load_tensors(newest.folder / WEIGHTS))
        learner.load_optimizer(load_optimizer(newest.folder))
        metadata = newest.manifest.metadata
        self._compare(metadata["around"])
        progress = Progress.of(metadata["progress"])
        self.ctx.metric(resumed_from=newest.folder.name, resumed_step=progress.step)
        return progress

    def _tidy(self) -> checkpoint.Newest:
        """Find where to go on; what is newer than that, and no good, goes out of the way."""
        checkpoint.sweep(self.root)
        newest = checkpoint.newest_valid(self.root, require=self._require)
        for skipped in newest.skipped:
            place = checkpoint.set_aside(skipped.folder, self.ctx.folder / SET_ASIDE)
            self.ctx.warn(f"training does not go on from {skipped.folder.name}: {skipped.why}. It lies in {place}")
        if newest.skipped and newest.folder is None:
            self.ctx.warn("no checkpoint is left to go on from: training starts from the beginning")
        return newest

    def take(self, learner: Learner, step: int) -> None:
        """Put the weights of a step back, once its checkpoint has been verified."""
        checkpoint.verify(self._folder(step))
        learner.load(load_tensors(self._folder(step) / WEIGHTS))

    def _require(self, manifest: checkpoint.Manifest) -> None:
        """It must be of this training, and the best evaluations it speaks of must be there."""
        metadata = manifest.metadata
        other = sorted(key for key, value in self.identity.items() if metadata["identity"].get(key) != value)
        if not other and metadata["plan"] != self.course.plan_hash(manifest.step):
            other = ["packing plan"]
        if other:
            raise CheckpointError(f"it belongs to another training ({', '.join(other)} differ)")
        for folder in self._best(Progress.of(metadata["progress"])):
            if folder != self._folder(manifest.step):
                checkpoint.verify(folder)

    def _best(self, progress: Progress) -> list[Path]:
        return [self._folder(step) for _, step in progress.best[: self.course.config.best_needed]]

    def _compare(self, before: dict[str, Any]) -> None:
        now = self.around
        changed = [f"{key} {now[key]} instead of {before.get(key)}" for key in now if before.get(key) != now[key]]
        if changed:
            self.ctx.warn(
                f"training goes on with {', '.join(changed)}: the last bits of its weights may differ from those of a "
                "training that was not interrupted"
            )

    def _folder(self, step: int) -> Path:
        return self.root / f"step-{step:06d}"
