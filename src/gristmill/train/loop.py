"""The training loop: steps, evaluations, checkpoints, stops. Blind to what the loss is and to where the tensors lie."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from math import inf
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from gristmill.core.errors import Cancelled
from gristmill.core.records import digest_of
from gristmill.core.stage import PassContext
from gristmill.train.config import TrainConfig
from gristmill.train.learner import Learner, Stepped
from gristmill.train.order import FORWARD, Order, Row
from gristmill.train.packing import Example, Packed, collate
from gristmill.train.schedule import rate_at

Reference = Mapping[str, Sequence[NDArray[np.float32]]]
"""By split, of each example: the log-probabilities of its sequences under the starting weights."""

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
    eval_loss: float | None = None  # the last one; that of the weights that are kept, once training has ended
    best: list[tuple[float, int]] = field(default_factory=list)  # losses and steps of the best evaluations, best first
    worse: int = 0  # evaluations since the best one
    weights_step: int = 0  # the step whose weights the learner holds

    def stepped(self, loss: float, lesson: Lesson) -> None:
        self.step += 1
        self.weights_step = self.step
        self.tokens += lesson.tokens
        self.supervised += lesson.supervised
        self.recent = [*self.recent, loss][-RECENT:]

    def evaluated(self, loss: float, *, most: int) -> bool:
        """Take in an evaluation; True when it is among the `most` best so far."""
        self.eval_loss = loss
        self.worse = 0 if loss < (self.best[0][0] if self.best else inf) else self.worse + 1
        ranked = sorted([*self.best, (loss, self.step)])
        self.best = ranked[: max(most, 1)]
        return (loss, self.step) in ranked[:most]

    @classmethod
    def of(cls, plain: dict[str, Any]) -> Progress:
        """What `as_dict` gave, after its way through JSON."""
        return cls(**{**plain, "best": [(loss, step) for loss, step in plain["best"]]})

    @property
    def train_loss(self) -> float:
        return sum(self.recent) / len(self.recent)

    @property
    def metrics(self) -> dict[str, float]:
        """What a checkpoint record says of a training: numbers that a second run repeats to the bit."""
        told = {"train_loss": self.train_loss, "tokens": self.tokens, "supervised": self.supervised, "steps": self.step}
        held = {"eval_loss": self.eval_loss, "best_eval_loss": self.best[0][0] if self.best else None}
        return {name: float(value) for name, value in {**told, **held}.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Keeper(Protocol):
    """Keeps what the loop would need again after a kill."""

    def save(self, learner: Learner, progress: Progress) -> None: ...

    def take(self, learner: Learner, step: int) -> None: ...


class Given(Protocol):
    """Examples to train on, in memory or on disk."""

    @property
    def lengths(self) -> NDArray[np.int64]: ...  # tokens of each

    @property
    def sizes(self) -> NDArray[np.float64]: ...  # what each counts in the mean

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@dataclass(frozen=True, eq=False)
class Laid(Sequence[Packed]):
    """Forward passes that are laid out each time they are asked for."""

    rows: Sequence[Row]
    lay: Callable[[Row], Packed]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Packed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Packed]: ...
    def __getitem__(self, index: int | slice) -> Packed | list[Packed]:
        return [self.lay(row) for row in self.rows[index]] if isinstance(index, slice) else self.lay(self.rows[index])


@dataclass(frozen=True)
class Lesson:
    """What one optimiser step, or one evaluation, reads: its forward passes, and what the mean is over."""

    parts: Sequence[Packed]
    total: float

    @property
    def tokens(self) -> int:
        return sum(len(part.ids) for part in self.parts)

    @property
    def supervised(self) -> int:
        return sum(len(part.targets) for part in self.parts)


@dataclass(frozen=True)
class Course:
    """What is trained on, in which order, and for how long. A function of config, seed and data: nothing of it
    depends on how often the training was interrupted, or on how many processes share it."""

    config: TrainConfig
    seed: int
    examples: Given
    held: Given
    order: Order
    rows: int
    forward: int = FORWARD
    reference: Reference | None = None

    @classmethod
    def of(cls, config: TrainConfig, examples: Given, held: Given, *, seed: int) -> Course:
        per_step = max(1, config.batch // config.context)
        order = Order(examples.lengths, config.context, seed, per_step, config.packing)
        rows = order.rows_for(epochs=config.epochs_or_default, steps=config.steps, tokens=config.tokens)
        return cls(config, seed, examples, held, order, rows, config.forward or FORWARD)

    @property
    def steps(self) -> int:
        return self.order.steps_for(self.rows)

    def ended(self, progress: Progress) -> bool:
        """Whether the last step is taken, or patience has run out."""
        patience = self.config.patience
        return progress.step >= self.steps or (patience is not None and progress.worse >= patience)

    def lesson(self, step: int) -> Lesson:
        """What a step (from 0) reads."""
        rows = self.order.step(step, rows=self.rows)
        total = float(sum(self.examples.sizes[list(row)].sum() for row in rows))
        passes = self.order.passes(rows, tokens=self.forward)
        return Lesson(tuple(self._packed(self.examples, row, "train") for row in passes), total)

    @cached_property
    def validation(self) -> Lesson | None:
        """In passes as full as can be, each laid out as it is read: however many samples are held out, they are never
        in memory together."""
        if not len(self.held):
            return None
        passes = Order(self.held.lengths, max(self.config.row, self.forward), 0, 1).epoch(0)
        parts = Laid(passes, lambda row: self._packed(self.held, row, "validation"))
        return Lesson(parts, float(self.held.sizes.sum()))

    def _packed(self, given: Given, row: Row, split: str) -> Packed:
        reference = [self.reference[split][i] for i in row] if self.reference else ()
        return collate([given[i] for i in row], reference=reference)

    def plan_hash(self, step: int) -> str:
        """The hash of the packing plan that a step's first row lies in."""
        return self.order.digest(step * self.order.rows_per_step // self.order.rows_per_epoch)


class Watch(Protocol):
    """Hears of every step and validation, in time for the checkpoint that is written after them."""

    def stepped(self, progress: Progress, lesson: Lesson, stepped: Stepped, *, rate: float, seconds: float) -> None: ...

    def evaluated(self, step: int, **values: float) -> None: ...

    def speak(self, step: int) -> None: ...

    def sync(self) -> None: ...


def train(learner: Learner, course: Course, progress: Progress, keeper: Keeper, watch: Watch, ctx: PassContext) -> None:
    """Train from where `progress` is to the end of the course, or until patience runs out; then hold the best
    weights when there is a patience, the last ones otherwise. Asked to stop, it saves and raises Cancelled."""
    config, steps = course.config, course.steps
    while not course.ended(progress):
        begun = time.perf_counter()
        lesson = course.lesson(progress.step)
        rate = rate_at(config, progress.step, steps)
        seed = int(digest_of([course.seed, progress.step])[:15], 16)
        stepped = learner.step(lesson.parts, total=lesson.total, rate=rate, seed=seed)
        progress.stepped(stepped.loss, lesson)
        seconds = time.perf_counter() - begun
        watch.stepped(progress, lesson, stepped, rate=rate, seconds=seconds)
        better = _evaluate(learner, course, progress, watch)
        watch.speak(progress.step)
        speed = lesson.tokens / seconds
        ctx.progress(progress.step, steps, loss=round(stepped.loss, 4), tokens_per_second=round(speed))
        stopping, ended = learner.ranks.any(ctx.stopping()), course.ended(progress)
        # The end is kept only if these weights are left for others, or are taken up by another process.
        due = config.keep_best or learner.ranks.world > 1 if ended else progress.step % config.save_every == 0
        if due or stopping or better:
            watch.sync()
            keeper.save(learner, progress)
        if stopping and not ended:
            raise Cancelled(f"training stopped after step {progress.step} of {steps}", "Run the same command to go on.")
    best = progress.best[0][1] if config.patience and progress.best else progress.step
    if best != progress.step:
        keeper.take(learner, best)
        progress.weights_step, progress.eval_loss = best, progress.best[0][0]


def _evaluate(learner: Learner, course: Course, progress: Progress, watch: Watch) -> bool:
    """Take the validation loss when one is due: at every `eval_every` steps, and after the last. True when these are
    weights to be kept."""
    every = course.config.eval_every
    due = progress.step == course.steps or (every and progress.step % every == 0)
    lesson = course.validation if due else None
    if lesson is None:
        return False
    begun = time.perf_counter()
    held = learner.evaluate(lesson.parts, total=lesson.total)
    kept = progress.evaluated(held.loss, most=course.config.best_needed)
    told = {f"eval_{name}": value for name, value in held.metrics.items()}
    seconds = round(time.perf_counter() - begun, 2)
    watch.evaluated(progress.step, eval_loss=held.loss, best=float(not progress.worse), eval_seconds=seconds, **told)
    return kept
