"""Learning from pairs: the chosen way to go on shall become likelier than the rejected one.

With l(y) the log-probability of a response's supervised tokens, l̄(y) its mean over them, r(y) and r̄(y) the same less
the log-probability under the starting weights; c chosen, j rejected:

    dpo    -log σ(β(r(c) - r(j)))                       Rafailov et al. 2023, arXiv 2305.18290, eq. 7
           label_smoothing ε mixes in the pair turned round: -(1-ε) log σ(z) - ε log σ(-z)     Mitchell 2023, cDPO
    ipo    (r̄(c) - r̄(j) - 1/(2β))²                      Azar et al. 2023, arXiv 2310.12036, eq. 17
    orpo   -β log σ(odds(c) - odds(j)), odds = log p/(1-p), log p = l̄      Hong et al. 2024, arXiv 2403.07691, eq. 4-7
    simpo  -log σ(β(l̄(c) - l̄(j)) - γ)                   Meng et al. 2024, arXiv 2405.14734, eq. 6

each plus -sft_weight · l̄(c): 1 in orpo (its eq. 6); elsewhere 0, or what keeps the chosen response from becoming
unlikely too (Pang et al. 2024, arXiv 2404.19733, eq. 1). IPO's ratios are means over tokens: its paper writes sums, but
a square of sums would grow with the length of a response.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from gristmill.core.records import Sample
from gristmill.models.renderer import Renderer
from gristmill.train.batch import Said
from gristmill.train.kinds import PreferenceConfig
from gristmill.train.objective import Loss, Objective
from gristmill.train.objectives.conversation import pair, supervised
from gristmill.train.packing import Example


class Preference(Objective):
    """Pairs of responses to one prompt; the mean is over pairs."""

    forms = frozenset({"preference"})

    def __init__(self, config: PreferenceConfig) -> None:
        super().__init__(config)
        self.reference = config.loss in ("dpo", "ipo")

    def examples(self, sample: Sample, renderer: Renderer) -> list[Example]:
        return [supervised(pair(sample, renderer, self.config))]

    def loss(self, said: Said, *, total: float, estimate: float) -> Loss:
        del estimate
        sums, counts = said.sequence_logprobs(), said.counts()
        rewards = rewards_of(self.config, sums - said.batch.reference if self.reference else sums, counts)
        chosen, rejected = rewards[0::2], rewards[1::2]
        losses = compared(self.config, chosen - rejected)
        if self.config.own_weight:
            losses = losses - self.config.own_weight * (sums / counts)[0::2]
        return Loss(
            losses.sum() / total,
            {
                "accuracy": (chosen > rejected).sum(),
                "margin": (chosen - rejected).sum(),
                "chosen_reward": chosen.sum(),
                "rejected_reward": rejected.sum(),
            },
        )


def rewards_of(config: PreferenceConfig, sums: Tensor, counts: Tensor) -> Tensor:
    """What each response [sequences] is worth to the loss. `sums`: log-probabilities of its `counts` tokens, less the
    reference's where the loss has one."""
    if config.loss == "dpo":
        return config.scale * sums
    if config.loss == "orpo":
        mean = (sums / counts).clamp(max=-1e-6)  # a certain response has infinite odds
        return mean - torch.log(-torch.expm1(mean))
    return sums / counts if config.loss == "ipo" else config.scale * sums / counts


def compared(config: PreferenceConfig, margins: Tensor) -> Tensor:
    """The loss of each pair [pairs], of how far its chosen response leads."""
    if config.loss == "ipo":
        return (margins - 1 / (2 * config.scale)) ** 2
    if config.loss == "orpo":
        return -config.scale * logsigmoid(margins)
    lead = margins - config.gamma if config.loss == "simpo" else margins
    doubt = config.label_smoothing
    return -(1 - doubt) * logsigmoid(lead) - doubt * logsigmoid(-lead)
