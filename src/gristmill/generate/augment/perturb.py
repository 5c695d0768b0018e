"""The same sample with typing errors, or in other letters: what people really type, and what a label must survive.

By code and seed alone: no model, no call. As TextAttack has it (arXiv 2005.05909), an operator and its constraints:
names, numbers, code and a label's spans stay verbatim, and masks point at the same words as before. A variant names
its sample in the mark `variant_of`.
"""

from __future__ import annotations

import random
from typing import cast

from gristmill.core.errors import Reject
from gristmill.core.records import Message, Origin, Sample, Span
from gristmill.core.stage import StepContext
from gristmill.generate.augment.edits import apply, free, moved
from gristmill.generate.augment.operators import recast, spoil
from gristmill.generate.augment.stages import NOISE, Form, Noise, PerturbConfig

_MESSAGES = ("messages", "chosen", "rejected")


async def run(config: PerturbConfig, record: Sample, ctx: StepContext) -> list[Sample]:
    """The variants alone; the samples themselves go on by `needs`."""
    split = record.marks.get("split", "train")
    if split not in config.splits:
        raise Reject("of another split", f"{split}; `splits` says {', '.join(config.splits)}")
    variants: dict[str, Sample] = {}
    for way in config.ways:
        for copy in range(config.copies if way in NOISE else 1):
            variant = _variant(config, record, way, ctx.rng(record, way, copy), stage=ctx.stage)
            if variant is None:
                ctx.count(**{f"{way}: nothing to touch": 1})
            else:
                variants[variant.id] = variant
    if not variants:
        raise Reject("nothing to touch", "every word is protected, or has no letter for these ways")
    return list(variants.values())


def _variant(
    config: PerturbConfig, sample: Sample, way: Noise | Form, rng: random.Random, *, stage: str
) -> Sample | None:
    """The sample in one way; None where nothing changed."""
    changes: dict[str, object] = {}
    if sample.text:
        mask = () if isinstance(sample.train, bool) else sample.train
        text, (spans, train) = _touched(config, sample.text, (sample.spans, mask), way, rng)
        changes = {"text": text, "spans": spans, "train": train or sample.train}
    for name in _MESSAGES:
        messages = cast(tuple[Message, ...], getattr(sample, name))
        changes[name] = tuple(_message(config, message, way, rng) for message in messages)
    variant = sample.model_copy(update={**changes, "parents": (sample.id,), "origin": Origin(stage=stage)})
    if _says(variant) == _says(sample) or (variant.chosen and variant.chosen == variant.rejected):
        return None
    return variant.marked(variant_of=sample.marks.get("variant_of", sample.id), perturbed=way)


def _says(sample: Sample) -> tuple[object, ...]:
    return sample.text, sample.messages, sample.chosen, sample.rejected


def _message(config: PerturbConfig, message: Message, way: Noise | Form, rng: random.Random) -> Message:
    if message.role not in config.roles:
        return message
    mask = () if isinstance(message.train, bool) else message.train
    text, (_, train) = _touched(config, message.content, ((), mask), way, rng)
    return Message(role=message.role, content=text, train=train or message.train)


def _touched(
    config: PerturbConfig, text: str, points: tuple[tuple[Span, ...], tuple[Span, ...]], way: Noise | Form,
    rng: random.Random,
) -> tuple[str, tuple[tuple[Span, ...], tuple[Span, ...]]]:  # fmt: skip
    """The text after one way, and where its labelled spans and its mask lie then."""
    spans, mask = points
    borders = (end for span in mask for end in span)
    room = free(text, protect=config.protect, words=config.words, spans=spans, borders=borders)
    edits = spoil(room, way, share=config.share, rng=rng) if way in NOISE else recast(room, cast(Form, way))
    return apply(text, edits), (moved(spans, edits), moved(mask, edits))
