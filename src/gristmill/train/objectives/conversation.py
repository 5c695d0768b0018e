"""A conversation as tokens: what every objective that learns from chats makes its examples of."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Message, Sample
from gristmill.models.renderer import Rendered, Renderer
from gristmill.train.config import TrainConfig
from gristmill.train.packing import Example, Tokens


def tokens_of(rendered: Rendered) -> Tokens:
    return Tokens(np.array(rendered.ids, np.int64), np.array(rendered.mask, np.bool_))


def conversation(messages: Sequence[Message], sample: Sample, renderer: Renderer, config: TrainConfig) -> Tokens:
    """A rendered conversation, if it fits the context and teaches to stop. A longer one is dropped, or cut where the
    config says so: half a conversation teaches the wrong thing."""
    rendered = renderer.chat(messages)
    if any(message.train is True for message in messages):
        _require_stop(sample, rendered, renderer)
    return fitted(tokens_of(rendered), config)


def pair(sample: Sample, renderer: Renderer, config: TrainConfig) -> Example:
    """The chosen and the rejected way to go on, each after the prompt. Of the prompt nothing is learned: it is the same
    in both."""
    prompt = [message.model_copy(update={"train": False}) for message in sample.messages]
    made = (conversation([*prompt, *said], sample, renderer, config) for said in (sample.chosen, sample.rejected))
    return told_apart(Example(tuple(made)))


def told_apart(example: Example) -> Example:
    """The pair, if its two sequences differ: of equal ones a loss learns nothing, or that one is better than itself."""
    chosen, rejected = example.sequences
    if np.array_equal(chosen.ids, rejected.ids):
        raise Reject("nothing tells the two answers apart", "they are the same tokens, or are where the context ends")
    return example


def fitted(tokens: Tokens, config: TrainConfig) -> Tokens:
    if len(tokens) <= config.context or config.truncation == "cut":
        return tokens.first(config.context)
    detail = f"{len(tokens)} tokens; raise the stage's context of {config.context}, cut what is longer, or shorten it"
    raise Reject("longer than the context", detail)


def supervised(example: Example) -> Example:
    """The example, if each of its sequences has something to learn from."""
    if not all(tokens.supervised for tokens in example.sequences):
        raise Reject("nothing to train on", "no token of it, or of one of its answers, is marked to be trained")
    return example


def _require_stop(sample: Sample, rendered: Rendered, renderer: Renderer) -> None:
    """A model that is never taught to stop talks on for ever."""
    if not any(seen and token in renderer.stop_ids for token, seen in zip(rendered.ids, rendered.mask, strict=True)):
        raise InputError(
            f"the stop token is not trained in sample {sample.id}",
            "The model's chat template does not close an assistant's turn with one of its end tokens: "
            "use a model whose template does, or set its eos token.",
        )
