"""A reward model: one score for a conversation, higher for what was chosen. Bradley and Terry 1952, as in Ouyang et al.
2022, arXiv 2203.02155, eq. 1:

    -log σ(s(c) - s(j) - margin) + centering · (s(c) + s(j))²

The margin is that of Touvron et al. 2023, arXiv 2307.09288, eq. 2; the second term (Eisenstein et al. 2023, arXiv
2312.09244) fixes the mean score, which pairs alone leave open, at zero.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn.functional import logsigmoid

from gristmill.core.records import Sample
from gristmill.models.renderer import Renderer
from gristmill.train.batch import Said
from gristmill.train.kinds import RewardConfig
from gristmill.train.objective import Loss, Objective
from gristmill.train.objectives.conversation import pair, told_apart
from gristmill.train.packing import Example, Tokens


class Reward(Objective):
    """Pairs of responses to one prompt, each read at its end; the mean is over pairs."""

    forms = frozenset({"preference"})
    head = "score"
    labels = ("reward",)

    def examples(self, sample: Sample, renderer: Renderer) -> list[Example]:
        return [told_apart(until_padding(pair(sample, renderer, self.config), renderer.pad))]

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
    return -logsigmoid(chosen - rejected - config.margin) + config.centering * (chosen + rejected) ** 2


def until_padding(example: Example, pad: int) -> Example:
    """Its sequences without padding tokens at their ends: other libraries read a score at the last token that is not
    one, and some models pad with the very token that ends their turns."""

    def cut(tokens: Tokens) -> Tokens:
        end = int(np.flatnonzero(tokens.ids != pad)[-1]) + 1
        return Tokens(tokens.ids[:end], tokens.mask[:end], tokens.left_out)

    return Example(tuple(cut(tokens) for tokens in example.sequences), example.values)
