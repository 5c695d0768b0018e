"""Supervised fine-tuning, and on texts alone continued pretraining: cross-entropy of the tokens that are marked.

A message or text says for every character whether the loss sees it; the mean is over all supervised tokens of a step.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Sample
from gristmill.models.renderer import Rendered, Renderer
from gristmill.train.batch import Said
from gristmill.train.config import TrainConfig
from gristmill.train.objective import Loss
from gristmill.train.packing import Example, Tokens


class Supervised:
    forms = frozenset({"text", "chat"})
    head: Literal["tokens", "score"] = "tokens"
    labels: tuple[str, ...] = ()
    reference = False

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def examples(self, sample: Sample, renderer: Renderer) -> list[Example]:
        """A text is cut into consecutive pieces of the context. A longer chat is dropped, or cut where the config says
        so: half a conversation teaches the wrong thing."""
        if sample.form == "text":
            pieces = tokens_of(renderer.text(sample.text, train=sample.train)).pieces(self.config.context)
        else:
            pieces = [chat_tokens(sample, renderer.chat(sample.messages), renderer, self.config)]
        seen = [Example((piece,)) for piece in pieces if piece.supervised]
        if not seen:
            raise Reject("nothing to train on", "no token of it is marked to be trained")
        return seen

    def size(self, example: Example) -> float:
        return example.supervised

    def estimate(self, said: Said) -> None:  # noqa: ARG002
        return None

    def loss(self, said: Said, *, total: float, estimate: float) -> Loss:  # noqa: ARG002
        return Loss(said.cross_entropy(total=total))


def tokens_of(rendered: Rendered) -> Tokens:
    return Tokens(np.array(rendered.ids, np.int64), np.array(rendered.mask, np.bool_))


def chat_tokens(sample: Sample, rendered: Rendered, renderer: Renderer, config: TrainConfig) -> Tokens:
    """A rendered conversation, if it fits the context and teaches to stop."""
    tokens = tokens_of(rendered)
    if any(m.train is True for m in (*sample.messages, *sample.chosen, *sample.rejected)):
        require_stop(sample, rendered, renderer)
    if len(tokens) <= config.context:
        return tokens
    if config.truncation == "cut":
        return Tokens(tokens.ids[: config.context], tokens.mask[: config.context])
    detail = f"{len(tokens)} tokens; raise the stage's context of {config.context}, or make shorter conversations"
    raise Reject("longer than the context", detail)


def require_stop(sample: Sample, rendered: Rendered, renderer: Renderer) -> None:
    """A model that is never taught to stop talks on for ever."""
    if not any(seen and token in renderer.stop_ids for token, seen in zip(rendered.ids, rendered.mask, strict=True)):
        raise InputError(
            f"the stop token is not trained in sample {sample.id}",
            "The model's chat template does not close an assistant's turn with one of its end tokens: "
            "use a model whose template does, or set its eos token.",
        )
