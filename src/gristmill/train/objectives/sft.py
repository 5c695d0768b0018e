"""Supervised fine-tuning, and on texts alone continued pretraining: cross-entropy of the tokens that are marked.

A message or text says for every character whether the loss sees it; the mean is over all supervised tokens of a step.
"""

from __future__ import annotations

from gristmill.core.errors import Reject
from gristmill.core.records import Sample
from gristmill.models.renderer import Renderer
from gristmill.train.batch import Said
from gristmill.train.objective import Loss, Objective
from gristmill.train.objectives.conversation import conversation, tokens_of
from gristmill.train.packing import Example


class Supervised(Objective):
    forms = frozenset({"text", "chat"})

    def examples(self, sample: Sample, renderer: Renderer) -> list[Example]:
        """A chat is one example; a text is cut into consecutive pieces of the context."""
        if sample.form == "text":
            pieces = tokens_of(renderer.text(sample.text, train=sample.train)).pieces(self.config.context)
        else:
            pieces = [conversation(sample.messages, sample, renderer, self.config)]
        seen = [Example((piece,)) for piece in pieces if piece.supervised]
        if not seen:
            raise Reject("nothing to train on", "no token of it is marked to be trained")
        return seen

    def size(self, example: Example) -> float:
        return example.supervised

    def loss(self, said: Said, *, total: float, estimate: float) -> Loss:  # noqa: ARG002
        return Loss(said.cross_entropy(total=total))
