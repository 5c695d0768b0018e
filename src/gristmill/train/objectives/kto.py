"""Learning from ratings: a desirable answer shall become likelier than what the model says otherwise, an undesirable
one less likely. Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv 2402.01306, eq. 7-8):

    desirable     λ_D (1 - σ(β(r - z)))         r = log π(y|x) - log π_start(y|x)
    undesirable   λ_U (1 - σ(β(z - r)))         z = max(0, mean of r over mismatched answers)

z, how far the model has moved on the whole, is what answers are measured against. It is estimated from each prompt with
another sample's answer, over the whole optimiser step and without a gradient; which answer goes with which prompt is
fixed when the examples are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gristmill.core.records import Sample
from gristmill.models.renderer import Renderer
from gristmill.train.batch import Said
from gristmill.train.kinds import KtoConfig
from gristmill.train.objective import Loss, Objective
from gristmill.train.objectives.conversation import conversation, supervised
from gristmill.train.packing import Example, Tokens


class Kto(Objective):
    """Answers rated one by one; the mean is over answers."""

    forms = frozenset({"rating"})
    reference = True

    def examples(self, sample: Sample, renderer: Renderer) -> list[Example]:
        answered = Example(
            (conversation(sample.messages, sample, renderer, self.config),), (float(sample.desirable or 0),)
        )
        return [supervised(answered)]

    def beside(self, examples: Iterable[Example]) -> Iterator[Example]:
        """To each prompt the answer of the next example with another prompt, to the last ones' that of the first."""
        first: Example | None = None
        waiting: list[Example] = []
        for example in examples:
            first = first or example
            if waiting and prompt_of(example) != prompt_of(waiting[0]):
                yield from (mismatched(each, example, context=self.config.context) for each in waiting)
                waiting = []
            waiting.append(example)
        if first is not None:
            alike = prompt_of(first) == prompt_of(waiting[0])
            yield from (each if alike else mismatched(each, first, context=self.config.context) for each in waiting)

    def concern(self, examples: Iterable[Example]) -> str:
        if any(example.beside for example in examples):
            return ""
        return (
            "all ratings have the same prompt: no answer stands beside another's prompt, so z is 0 throughout, and "
            "answers are measured against the starting model alone"
        )

    def estimate(self, said: Said) -> tuple[float, float]:
        moved = said.sequence_logprobs() - said.batch.reference
        return float(moved.sum()), float(len(moved))

    def loss(self, said: Said, *, total: float, estimate: float) -> Loss:
        desirable = said.batch.values[:, 0] > 0
        moved = said.sequence_logprobs() - said.batch.reference
        kl = max(0.0, estimate)
        rewards = (self.config.beta * moved).detach()
        return Loss(
            rated(self.config, moved, desirable, kl=kl).sum() / total,
            {
                "kl": moved.new_tensor(kl * len(moved)),
                "desirable": desirable.sum(),
                "desirable_reward": rewards[desirable].sum(),
                "undesirable_reward": rewards[~desirable].sum(),
            },
        )

    def metrics(self, sums: Mapping[str, float], total: float) -> dict[str, float]:
        """The mean reward of either kind, where there is one of it."""
        found = {"kl": sums["kl"] / total}
        for kind, count in (("desirable", sums["desirable"]), ("undesirable", total - sums["desirable"])):
            if count:
                found[f"{kind}_reward"] = sums[f"{kind}_reward"] / count
        return found


def prompt_of(example: Example) -> bytes:
    (tokens,) = example.sequences
    return tokens.ids[: _answer(tokens)].tobytes()


def _answer(tokens: Tokens) -> int:
    """Where what is rated begins: at the first supervised token."""
    return int(np.argmax(tokens.mask))


def mismatched(example: Example, other: Example, *, context: int) -> Example:
    """An example with its prompt and another one's answer beside it, cut to the context."""
    (own,), (its,) = example.sequences, other.sequences
    prompt, begin = _answer(own), _answer(its)
    ids = np.concatenate([own.ids[:prompt], its.ids[begin:]])[:context]
    mask = np.concatenate([np.zeros(prompt, np.bool_), its.mask[begin:]])[:context]
    return replace(example, beside=(Tokens(ids, mask),))


def rated(config: KtoConfig, moved: Tensor, desirable: Tensor, *, kl: float) -> Tensor:
    """The loss of each answer [answers]. `moved`: its log-probability less that under the starting weights."""
    sign = torch.where(desirable, 1.0, -1.0).to(moved)
    weight = torch.where(desirable, config.desirable_weight, config.undesirable_weight).to(moved)
    return weight * (1 - torch.sigmoid(config.beta * sign * (moved - kl)))
