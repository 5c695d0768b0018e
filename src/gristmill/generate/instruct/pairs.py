"""Preference pairs from judged answers, as UltraFeedback made them (Cui et al. 2023, arXiv 2310.01377): several models
answer the same prompt, a judge says how good each answer is, the best one is chosen and the worst one rejected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from gristmill.core.errors import ConfigError
from gristmill.core.records import Message, Record, Sample, digest_of
from gristmill.core.stage import Dropped, PassContext, PassResult, samples
from gristmill.generate.chat.asked import carried
from gristmill.generate.instruct.stages import PairsConfig


def run(config: PairsConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    groups: dict[str, list[Sample]] = {}
    for sample in samples(records):
        if sample.form != "chat" or not sample.messages or sample.messages[-1].role != "assistant":
            yield Dropped(sample, "no chat that ends with an answer")
        elif config.mark not in sample.marks:
            yield Dropped(sample, f"no mark {config.mark}")
        else:
            split = sample.marks.get("split", "train")  # of two splits no pair is made: its answers are of both
            asked = digest_of([split, *([m.role, m.content] for m in sample.messages[:-1])])
            groups.setdefault(asked, []).append(sample)
    for group in groups.values():
        ranked = sorted(group, key=lambda sample: (_value(config, sample), sample.id))
        yield from _paired(config, ranked, ctx)


def _value(config: PairsConfig, sample: Sample) -> float:
    value = sample.marks[config.mark]
    if config.order is not None and isinstance(value, str) and value in config.order:
        return float(config.order.index(value))
    if config.order is None and isinstance(value, int | float):
        return float(value)
    known = f"The order is {', '.join(config.order)}." if config.order else "Give `order` for a mark of choices."
    raise ConfigError(f"the mark {config.mark} holds {value!r}, which says nothing of better and worse", known)


def _paired(config: PairsConfig, ranked: list[Sample], ctx: PassContext) -> Iterator[Sample | Dropped]:
    """Of the answers to one prompt, the worst first: the pair, or every answer with the reason why there is none."""
    if problem := _problem(config, ranked):
        yield from (Dropped(sample, *problem) for sample in ranked)
        return
    if between := len(ranked) - 2:
        ctx.count(**{"answers between the best and the worst": between})
    yield _pair(config, ranked[0], ranked[-1])


def _problem(config: PairsConfig, ranked: list[Sample]) -> tuple[str, str] | None:
    worst, best = ranked[0], ranked[-1]
    if len(ranked) < 2:
        return "only one answer", ""
    if (gained := _gained(config, worst, best)) < config.margin:
        return "no answer is clearly better", f"{gained:g} is less than {config.margin:g}"
    if " ".join(best.answer.split()) == " ".join(worst.answer.split()):
        return "the same words, judged twice", ""
    return None


def _gained(config: PairsConfig, worst: Sample, best: Sample) -> float:
    return _value(config, best) - _value(config, worst)


def _pair(config: PairsConfig, worst: Sample, best: Sample) -> Sample:
    return Sample(
        form="preference",
        kind="pair",
        messages=tuple(message.model_copy(update={"train": False}) for message in best.messages[:-1]),
        chosen=(_answer(best),),
        rejected=(_answer(worst),),
        quotes=tuple(dict.fromkeys((*best.quotes, *worst.quotes))),
        language=best.language,
        marks={**carried(best), "margin": _gained(config, worst, best)},
        parents=(best.id, worst.id),
        origin=best.origin,
    )


def _answer(sample: Sample) -> Message:
    return sample.messages[-1].model_copy(update={"train": True})
