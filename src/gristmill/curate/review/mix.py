"""The mixture of a data set: how many tokens of each group, so that neither length nor count decides what is learned.

Shares always hold: the whole is as large as the group that is scarcest for its share allows, which is said. Within a
group, samples are drawn in an order that seed and id alone decide, each that still fits; a sample that comes or goes
elsewhere moves no other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from gristmill.core.errors import InputError
from gristmill.core.records import Record, Sample, digest_of
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.curate.review.stages import MixConfig
from gristmill.models.counter import token_counter, tokenizer_files

NONE = "none"
"""Group of samples that have no such mark, or that no model wrote."""

Sizes = dict[str, int]
"""Tokens by the id of a sample."""


def inputs(config: MixConfig, base: Path) -> list[Path]:
    return tokenizer_files(config.tokenizer, base)


def run(config: MixConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    groups = _groups(config, records, token_counter(config.tokenizer, ctx.base))
    shares = _shares(config, groups)
    there = {name: sum(groups[name].values()) for name in shares}
    scarcest = min(shares, key=lambda name: there[name] / shares[name])
    total = there[scarcest] / shares[scarcest]
    if config.tokens is not None:
        if total < config.tokens:
            had = f"{there[scarcest]:,} tokens of {scarcest} make a mix of {total:,.0f}"
            ctx.warn(f"{had}, not of {config.tokens:,}: it is as large as they allow")
        total = min(total, config.tokens)
    kept: set[str] = set()
    for name, share in shares.items():
        taken = _drawn(groups[name], total * share, ctx.seed)
        kept |= taken.keys()
        ctx.count(**{f"{name}: tokens": sum(taken.values()), f"{name}: samples": len(taken)})
    for record in records:
        if isinstance(record, Sample):
            yield _placed(config, record, kept, shares)


def _placed(config: MixConfig, sample: Sample, kept: set[str], shares: dict[str, float]) -> Record | Dropped:
    if not _trained(sample) or sample.id in kept:
        return sample
    group = group_of(config, sample)
    if group not in shares:
        return Dropped(sample, "its group has no share in the mix", group)
    return Dropped(sample, "over its group's share in the mix", f"{group}: {shares[group]:.1%} of the tokens")


def _trained(sample: Sample) -> bool:
    return sample.marks.get("split", "train") == "train"


def group_of(config: MixConfig, sample: Sample) -> str:
    origin = sample.origin
    values = {
        "kind": sample.kind,
        "form": sample.form,
        "language": sample.language,
        "stage": origin.stage if origin else None,
        "model": origin.model if origin else None,
        "mark": sample.marks.get(config.mark or ""),
    }
    value = values[config.by]
    return NONE if value is None else str(value)


def tokens_of(sample: Sample, count: Callable[[str], int]) -> int:
    """Tokens of all that is said in a sample; what a chat template puts around it is not counted."""
    parts = (*sample.messages, *sample.chosen, *sample.rejected)
    return sum(map(count, filter(None, (sample.text, sample.label, *(message.content for message in parts)))))


def _groups(config: MixConfig, records: Iterable[Record], count: Callable[[str], int]) -> dict[str, Sizes]:
    groups: defaultdict[str, Sizes] = defaultdict(dict)
    for record in records:
        if isinstance(record, Sample) and _trained(record):
            groups[group_of(config, record)][record.id] = tokens_of(record, count)
    return groups


def _shares(config: MixConfig, groups: dict[str, Sizes]) -> dict[str, float]:
    """Parts of one, by group."""
    there = ", ".join(sorted(groups)) or "none"
    wanted = config.shares or dict.fromkeys(sorted(groups), 1.0)
    if missing := [name for name in wanted if not groups.get(name)]:
        raise InputError(f"no training sample belongs to {', '.join(missing)}", f"By {config.by} there are: {there}.")
    if not wanted:
        raise InputError("there is no training sample to mix", "Look at the funnel: what dropped them?")
    whole = sum(wanted.values())
    return {name: part / whole for name, part in wanted.items()}


def _drawn(sizes: Sizes, budget: float, seed: int) -> Sizes:
    """Samples in seeded order, each that still fits; at least one, so that no group vanishes."""
    order = sorted(sizes, key=lambda name: digest_of([seed, name]))
    taken: Sizes = {}
    used = 0
    for name in order:
        if used + sizes[name] <= budget + 1e-6:
            taken[name] = sizes[name]
            used += sizes[name]
    return taken or {min(order, key=lambda name: (sizes[name], name)): min(sizes.values())}
