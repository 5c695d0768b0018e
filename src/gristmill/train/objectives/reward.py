"""A reward model: one score for a conversation, higher for what was chosen. Bradley and Terry 1952, as in Ouyang et al.
2022, arXiv 2203.02155, eq. 1:

    -log σ(s(c) - s(j) - margin) + centering · (s(c) + s(j))²

The margin is that of Touvron et al. 2023, arXiv 2307.09288, eq. 2; the second term (Eisenstein et al. 2023, arXiv
2312.09244) fixes the mean score, which pairs alone leave open, at zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from gristmill.train.config import TrainConfig
from gristmill.train.objective import Loss, Objective
from gristmill.train.objectives.conversation import pair, until_padding

if TYPE_CHECKING:
    from torch import Tensor

    from gristmill.core.records import Sample
    from gristmill.models.renderer import Renderer
    from gristmill.train.batch import Said
    from gristmill.train.packing import Example


class RewardConfig(TrainConfig):
    """A reward model on preference samples: the model's layers with a head that gives one score."""

    rates: ClassVar[tuple[float, float]] = (2e-4, 2e-5)

    kind: Literal["train.reward"]
    margin: float = Field(0.0, ge=0, description="How far the chosen score shall lead")
    centering: float = Field(0.0, ge=0, description="Weight of keeping the two scores of a pair around zero, 0.01 say")


class Reward(Objective):
    """Pairs of responses to one prompt, each read at its end; the mean is over pairs."""

    settings = RewardConfig
    forms = frozenset({"preference"})
    head = "score"
    labels = ("reward",)

    def examples(self, sample: Sample, renderer: Renderer) -> list[Example]:
        return [until_padding(pair(sample, renderer, self.config), renderer.pad)]

    def loss(self, said: Said, *, total: float, estimate: float) -> Loss:
        del estimate
        scores = said.scores()[:, 0]
        chosen, rejected = scores[0::2], scores[1::2]
        return Loss(
            ranked(self.config, chosen, rejected).sum() / total,
            {
                "accuracy": (chosen > rejected).sum(),
                "margin": (chosen - rejected).sum(),
                "chosen_reward": chosen.sum(),
                "rejected_reward": rejected.sum(),
            },
        )


def ranked(config: RewardConfig, chosen: Tensor, rejected: Tensor) -> Tensor:
    """The loss of each pair [pairs], of its two scores."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(chosen - rejected - config.margin) + config.centering * (chosen + rejected) ** 2
