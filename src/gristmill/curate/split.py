"""Marks every sample train, test or validation. Seeded, and independent of where in the list a sample stands.

`by: question` holds out a wording whose fact stays taught by at least two other samples; with fewer such wordings than
asked for it takes as many as there are, and says so. `by: document` and `by: fact` hold out whole groups, and a group
never straddles splits: samples that share a document, or words of a document, belong together.

`by: sample` draws each sample's split from the seed and from what it asks alone: in constant memory, and no sample that
is added or gone ever moves another. Samples that ask the same fall into the same split.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import chain, zip_longest

from gristmill.core.errors import InputError
from gristmill.core.records import Document, Record, Sample, digest_of
from gristmill.core.stage import PassContext, PassResult, samples
from gristmill.curate.stages import SplitConfig
from gristmill.curate.words import plain

TAUGHT = 2
"""Samples that must go on teaching the fact of a question that is held out."""

Unit = list[Sample]
"""Samples that can only move together."""


def _order(seed: int, *key: object) -> str:
    return digest_of([seed, *map(str, key)])


def _fact(sample: Sample) -> str:
    quotes = sorted((quote.path, quote.start, quote.end) for quote in sample.quotes)
    return digest_of([quotes, plain(sample.answer)])


def _original(sample: Sample, ctx: PassContext) -> Sample:
    """What a variant (with typing errors, in another context) was made from; the two never stand on both sides."""
    if (first := sample.marks.get("variant_of")) is None:
        return sample
    return next((each for each in ctx.ancestors(sample, Sample) if each.id == first), sample)


def _wordings(config: SplitConfig, pool: list[Sample], ctx: PassContext) -> list[Unit]:
    """Wordings that may be held out, one of each fact before a second of any; their order depends on seed and ids."""
    seed, wording = ctx.seed, {sample.id: plain(_original(sample, ctx).question) for sample in pool}
    asked = Counter(wording[sample.id] for sample in pool if sample.form == "chat")
    facts: dict[str, list[Sample]] = defaultdict(list)
    for sample in pool:
        if sample.form == "chat" and sample.quotes and sample.kind != "conversation":
            facts[_fact(sample)].append(sample)
    offers = []
    for fact in sorted(facts, key=lambda fact: _order(seed, fact)):
        wordings: dict[str, Unit] = defaultdict(list)
        for sample in facts[fact]:
            wordings[wording[sample.id]].append(sample)
        spare, offer = len(facts[fact]) - TAUGHT, []
        for text in sorted(wordings, key=lambda text: _order(seed, fact, text)):
            unit = wordings[text]
            told_elsewhere = asked[text] > len(unit)
            wanted = config.kinds is None or all(sample.kind in config.kinds for sample in unit)
            if len(unit) <= spare and wanted and not told_elsewhere:
                offer.append(unit)
                spare -= len(unit)
        offers.append(offer)
    return [unit for unit in chain.from_iterable(zip_longest(*offers)) if unit]


def _groups(keyed: dict[str, list[Sample]], seed: int) -> list[Unit]:
    return [keyed[key] for key in sorted(keyed, key=lambda key: _order(seed, key))]


def _documents(pool: list[Sample], ctx: PassContext) -> dict[str, list[Sample]]:
    """Samples by document; documents that one sample joins (a conversation, a question over several) are one group."""
    leader: dict[str, str] = {}

    def lead(path: str) -> str:
        while leader.setdefault(path, path) != path:
            path = leader[path]
        return path

    paths = {sample.id: _paths(sample, ctx) for sample in pool}
    for joined in paths.values():
        for path in joined[1:]:
            one, other = sorted((lead(joined[0]), lead(path)))
            leader[other] = one
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in pool:
        groups[lead(paths[sample.id][0])].append(sample)
    return groups


def _paths(sample: Sample, ctx: PassContext) -> list[str]:
    found = sorted({quote.path for quote in sample.quotes})
    document = None if found else ctx.ancestor(sample, Document)
    return found or [document.path if document else f"sample {digest_of(_asks(_original(sample, ctx)))}"]


def _asks(sample: Sample) -> object:
    """What must not stand on both sides of a split: the text, or the messages up to the last question. Not the id:
    where a sample was read from would be in it."""
    last = max((at + 1 for at, message in enumerate(sample.messages) if message.role == "user"), default=None)
    return sample.text or [[message.role, message.content] for message in sample.messages[:last]]


def _facts(pool: list[Sample], ctx: PassContext) -> dict[str, list[Sample]]:
    """Samples whose quotes overlap, directly or through others, are one group; one without quotes is its own, with its
    variants."""
    spans = sorted((q.path, q.start, q.end, sample.id) for sample in pool for q in sample.quotes)
    leader = {sample.id: sample.id for sample in pool}

    def lead(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    path, reach, holder = "", -1, ""
    for at, start, end, name in spans:
        if at == path and start < reach:
            one, other = sorted((lead(holder), lead(name)))
            leader[other] = one
            reach = max(reach, end)
        else:
            path, reach, holder = at, end, name
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in pool:
        first = _original(sample, ctx).id if not sample.quotes else sample.id
        groups[lead(first) if first in leader else first].append(sample)
    return groups


def _take(units: list[Unit], target: int, most: int) -> list[Unit]:
    """Units in order that fit the target; where none fits, the smallest that leaves something to train on."""
    taken, size = [], 0
    for unit in units:
        if size + len(unit) <= min(target, most):
            taken.append(unit)
            size += len(unit)
    if not taken and target:
        taken = sorted((unit for unit in units if len(unit) <= most), key=len)[:1]
    return taken


_ADVICE = {
    "question": "Each fact needs at least three samples with the same quote and answer: generate more ways per fact, "
    "or use by: document, or set the share to 0.",
    "document": "Read more documents (at least one for each split), or use by: question, or set the share to 0.",
    "fact": "Generate samples on more facts whose quotes don't overlap, or use by: question, or set the share to 0.",
    "sample": "Each sample is drawn for itself, so that of a few none may be held out: set a larger share, or another "
    "seed, or use by: document, which holds out at least one.",
}


def _each(config: SplitConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    drawn: Counter[str] = Counter()
    for sample in records:
        if isinstance(sample, Sample):
            place = int(_order(ctx.seed, digest_of(_asks(_original(sample, ctx))))[:13], 16) / 16**13
            held = config.test + config.validation
            mark = "test" if place < config.test else "validation" if place < held else "train"
            drawn[mark] += 1
            yield sample.marked(split=mark)
    for mark, wanted in (("test", config.test), ("validation", config.validation), ("train", 1.0)):
        if wanted and not drawn[mark]:
            raise InputError(f"no sample fell to {mark} (by: sample, {drawn.total()} samples)", _ADVICE["sample"])
        ctx.count(**{mark: drawn[mark]})
        if mark != "train":
            ctx.metric(**{f"{mark}_held_out": drawn[mark]})


def run(config: SplitConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    if config.by == "sample":
        yield from _each(config, records, ctx)
        return
    pool = samples(records)
    if config.by == "question":
        units = _wordings(config, pool, ctx)
        countable = sum(s.form == "chat" and (config.kinds is None or s.kind in config.kinds) for s in pool)
    else:
        units = _groups(_documents(pool, ctx) if config.by == "document" else _facts(pool, ctx), ctx.seed)
        countable = len(pool)
    split: dict[str, str] = {}
    for name, share in (("test", config.test), ("validation", config.validation)):
        if not share:
            continue
        target = max(1, round(share * countable))
        taken = _take(units, target, len(pool) - len(split) - 1)
        if not taken:
            message = f"no sample can be held out for {name} (by: {config.by}, {len(pool)} samples)"
            raise InputError(message, _ADVICE[config.by])
        split |= {sample.id: name for unit in taken for sample in unit}
        units = [unit for unit in units if unit[0].id not in split]
        held = sum(map(len, taken))
        ctx.metric(**{f"{name}_wanted": target, f"{name}_held_out": held})
        if held < target:
            ctx.count(**{f"{name}_short_of_share": target - held})
    for record in pool:
        mark = split.get(record.id, "train")
        ctx.count(**{mark: 1})
        yield record.marked(split=mark)
