"""What a training is after. The loop is blind to it: an objective makes examples of samples, and a loss of what the
model says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal, Protocol

from gristmill.core.errors import ConfigError
from gristmill.core.records import Sample
from gristmill.core.stage import load_code
from gristmill.train.config import TrainConfig
from gristmill.train.packing import Example

if TYPE_CHECKING:
    import torch

    from gristmill.models.renderer import Renderer
    from gristmill.train.batch import Said


@dataclass(frozen=True)
class Loss:
    """A scalar to go down, and sums that become metrics: each is divided by the step's total."""

    value: torch.Tensor
    sums: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """One small file in `objectives/`, or in another package under the entry point `gristmill.objectives`."""

    forms: frozenset[str]
    """Forms of samples it learns from."""
    head: Literal["tokens", "score"]
    """What its loss reads: log-probabilities of next tokens, or scores from a head at each sequence's end."""
    labels: tuple[str, ...]
    """What the scores of a score head stand for; empty for tokens."""
    reference: bool
    """Whether it needs each sequence's log-probability under the starting weights, computed once before step 1."""

    def examples(self, sample: Sample, renderer: Renderer) -> list[Example]:
        """What is learned from a sample (a long text gives several). Raises `Reject` to drop it with its reason."""
        ...

    def size(self, example: Example) -> float:
        """What the mean is taken over: an example's supervised tokens, or 1 for a pair. A step's total is the sum over
        all its examples, so that how a step is split into forward passes or processes changes nothing."""
        ...

    def estimate(self, said: Said) -> tuple[float, float] | None:
        """A sum and a count over the sequences `beside` a part's examples. Their mean over the whole step goes to
        `loss`. None: nothing of the kind is needed."""
        ...

    def loss(self, said: Said, *, total: float, estimate: float) -> Loss:
        """The part's share of the step's loss: a sum over its examples, divided by the step's `total`."""
        ...


OBJECTIVES: dict[str, str] = {"train.sft": "gristmill.train.objectives.sft:Supervised"}
"""Kind -> where its objective is: a class that is made of the stage's config."""


def objective_of(config: TrainConfig) -> Objective:
    """The objective of a stage, ours or a plug-in's."""
    code = OBJECTIVES.get(config.kind)
    make: Callable[[Any], Objective] | None = load_code(code) if code else None
    for point in entry_points(group="gristmill.objectives"):
        if make is None and f"train.{point.name}" == config.kind:
            make = point.load()
    if make is None:
        raise ConfigError(f"no objective is called {config.kind}", f"There are: {', '.join(OBJECTIVES)}.")
    return make(config)
