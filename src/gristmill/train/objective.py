"""What a training is after. The loop is blind to it: an objective makes examples of samples, and a loss of what the
model says of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from gristmill.core.errors import ConfigError
from gristmill.core.records import Sample
from gristmill.core.stage import load_code
from gristmill.train.config import TrainConfig
from gristmill.train.kinds import OBJECTIVES, plugged
from gristmill.train.packing import Example

if TYPE_CHECKING:
    import torch

    from gristmill.models.renderer import Renderer
    from gristmill.train.batch import Said


@dataclass(frozen=True)
class Loss:
    """A scalar to go down, and sums over the part's examples that become metrics. The names are always the same."""

    value: torch.Tensor
    sums: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Objective(ABC):
    """One small file in `objectives/`, or in another package under the entry point `gristmill.objectives`.

    Made of the stage's config anew in every process: nothing that it learns by looking at samples stays with it (see
    `TrainConfig.settled`).
    """

    settings: ClassVar[type[TrainConfig]] = TrainConfig
    """The stage's config, of an objective in another package: a class of one's own where it has settings. Ours are in
    `kinds`."""
    forms: ClassVar[frozenset[str]]
    """Forms of samples it learns from."""
    head: ClassVar[Literal["tokens", "score"]] = "tokens"
    """What its loss reads: log-probabilities of next tokens, or scores from a head at each sequence's end."""
    labels: tuple[str, ...] = ()
    """What the scores of a score head stand for; empty for tokens."""
    reference: bool = False
    """Whether it needs each sequence's log-probability under the starting weights, computed once before step 1."""

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def examples(self, sample: Sample, renderer: Renderer) -> list[Example]:
        """What is learned from a sample (a long text gives several). Raises `Reject` to drop it with its reason."""

    def beside(self, examples: Iterable[Example]) -> Iterable[Example]:
        """The examples of a whole split, one for one and in order, with what is to be looked at beside each."""
        return examples

    def concern(self, examples: Iterable[Example]) -> str:  # noqa: ARG002
        """What whoever trains on these should know before step 1; nothing, mostly."""
        return ""

    def size(self, example: Example) -> float:  # noqa: ARG002
        """What the mean is taken over: an example's supervised tokens, or 1 for a pair. A step's total is the sum over
        all its examples, so that how a step is split into forward passes or processes changes nothing."""
        return 1.0

    def estimate(self, said: Said) -> tuple[float, float] | None:  # noqa: ARG002
        """A sum and a count over the sequences `beside` a part's examples. Their mean over the whole step goes to
        `loss`. None: nothing of the kind is needed."""
        return None

    @abstractmethod
    def loss(self, said: Said, *, total: float, estimate: float) -> Loss:
        """The part's share of the step's loss: a sum over its examples, divided by the step's `total`."""

    def metrics(self, sums: Mapping[str, float], total: float) -> dict[str, float]:
        """What is reported of a step or an evaluation, of the sums over all its parts."""
        return {name: value / total for name, value in sums.items()}


def objective_of(config: TrainConfig) -> Objective:
    """The objective of a stage, ours or a plug-in's."""
    if config.kind in OBJECTIVES:
        make: Callable[[TrainConfig], Objective] = load_code(OBJECTIVES[config.kind][1])
    elif config.kind in plugged():
        make = plugged()[config.kind].load()
    else:
        raise ConfigError(
            f"no objective is called {config.kind}", f"There are: {', '.join((*OBJECTIVES, *plugged()))}."
        )
    return make(config)
