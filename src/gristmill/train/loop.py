"""The training loop: steps, evaluations, checkpoints, stops. Blind to what the loss is and to where the tensors lie."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, Protocol

from gristmill.core.errors import Cancelled
from gristmill.core.records import digest_of
from gristmill.core.stage import PassContext
from gristmill.train.learner import Learner
from gristmill.train.packing import Order, Packed, Tokens, collate
from gristmill.train.schedule import rate_at
from gristmill.train.stages import SftConfig

RECENT = 10
"""Steps whose mean is the train loss that a checkpoint reports."""


@dataclass
class Progress:
    """Where a training is, in numbers that depend on data, config and seed alone. All that a resume needs besides
    tensors."""

    step: int = 0
    tokens: int = 0
    supervised: int = 0
    recent: list[float] = field(default_factory=list)
    eval_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    worse: int = 0  # evaluations since the best one
    weights_step: int = 0  # the step whose weights the learner holds

    def stepped(self, loss: float, parts: Sequence[Packed]) -> None:
        self.step += 1
        self.weights_step = self.step
        self.tokens += sum(len(part.ids) for part in parts)
        self.supervised += sum(len(part.targets) for part in parts)
        self.recent = [*self.recent, loss][-RECENT:]

    def evaluated(self, loss: float) -> bool:
        """Take in an evaluation; True when it is the best so far."""
        better = loss < (inf if self.best_loss is None else self.best_loss)
        self.eval_loss = loss
        self.worse = 0 if better else self.worse + 1
        if better:
            self.best_loss, self.best_step = loss, self.step
        return better

    @property
    def train_loss(self) -> float:
        return sum(self.recent) / len(self.recent)

    @property
    def metrics(self) -> dict[str, float]:
        """What a checkpoint record says of a training: numbers that a second run repeats to the bit."""
        told = {"train_loss": self.train_loss, "tokens": self.tokens, "supervised": self.supervised, "steps": self.step}
        held = {"eval_loss": self.eval_loss, "best_eval_loss": self.best_loss}
        return {name: float(value) for name, value in {**told, **held}.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Keeper(Protocol):
    """Keeps what the loop would need again after a kill."""

    def save(self, learner: Learner, progress: Progress) -> None: ...

    def restore_best(self, learner: Learner, progress: Progress) -> None: ...


@dataclass(frozen=True)
class Course:
    """What is trained on, in which order, and for how long."""

    config: SftConfig
    seed: int
    sequences: Sequence[Tokens]
    order: Order
    rows: int
    validation: tuple[Packed, ...] = ()

    @classmethod
    def of(cls, config: SftConfig, sequences: Sequence[Tokens], validation: Sequence[Tokens], *, seed: int) -> Course:
        per_step = max(1, config.batch // config.context)
        order = Order(tuple(len(s) for s in sequences), config.context, seed, per_step)
        rows = order.rows_for(epochs=config.epochs_or_default, steps=config.steps, tokens=config.tokens)
        held = Order(tuple(len(s) for s in validation), config.context, 0, 1)
        parts = tuple(collate([validation[i] for i in row]) for row in held.epoch(0))
        return cls(config, seed, sequences, order, rows, parts)

    @property
    def steps(self) -> int:
        return self.order.steps_for(self.rows)

    def parts(self, step: int) -> list[Packed]:
        """The forward passes of a step."""
        rows = self.order.step(step, rows=self.rows)
        return [collate([self.sequences[i] for i in row]) for row in self.order.passes(rows)]

    def plan_hash(self, step: int) -> str:
        """The hash of the packing plan that a step's first row lies in."""
        return self.order.digest(step * self.order.rows_per_step // self.order.rows_per_epoch)


def train(learner: Learner, course: Course, progress: Progress, keeper: Keeper, ctx: PassContext) -> None:
    """Train from where `progress` is to the end of the course, or until patience runs out; then hold the best
    weights when there is a patience, the last ones otherwise. Asked to stop, it saves and raises Cancelled."""
    config, steps = course.config, course.steps
    while progress.step < steps and not (config.patience and progress.worse >= config.patience):
        begun = time.perf_counter()
        parts = course.parts(progress.step)
        rate = rate_at(config, progress.step, steps)
        seed = int(digest_of([course.seed, progress.step])[:15], 16)
        stepped = learner.step(parts, rate=rate, seed=seed)
        before = progress.tokens
        progress.stepped(stepped.loss, parts)
        speed = (progress.tokens - before) / (time.perf_counter() - begun)
        ctx.metric(
            step=progress.step,
            tokens=progress.tokens,
            supervised=progress.supervised,
            loss=stepped.loss,
            lr=rate,
            grad_norm=stepped.grad_norm,
            tokens_per_second=round(speed, 1),
        )
        better = _evaluate(learner, course, progress, ctx)
        ctx.progress(progress.step, steps, loss=round(stepped.loss, 4), tokens_per_second=round(speed))
        stopping = ctx.stopping()
        due = progress.step % config.save_every == 0 and progress.step < steps
        if due or stopping or (better and config.patience):
            keeper.save(learner, progress)
        if stopping and progress.step < steps:
            raise Cancelled(f"training stopped after step {progress.step} of {steps}", "Run the same command to go on.")
    if config.patience and progress.best_step != progress.step:
        keeper.restore_best(learner, progress)
        progress.weights_step = progress.best_step or 0


def _evaluate(learner: Learner, course: Course, progress: Progress, ctx: PassContext) -> bool:
    """Take the validation loss when one is due: at every `eval_every` steps, and after the last."""
    every = course.config.eval_every
    due = progress.step == course.steps or (every and progress.step % every == 0)
    if not course.validation or not due:
        return False
    better = progress.evaluated(learner.evaluate(course.validation))
    ctx.metric(step=progress.step, eval_loss=progress.eval_loss or 0.0, best=float(better))
    return better
