"""More labelled rows from those there are. Only rows that are marked `train` have variants, and a variant is marked so,
too: no row and its variant stand on both sides of a split.

Every variant that fails a check is counted with its reason. The rows themselves go on by `needs`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from gristmill.core.errors import Reject
from gristmill.core.records import Sample
from gristmill.core.stage import StepContext
from gristmill.generate.augment.job import Job, Offer, Variant
from gristmill.generate.augment.stages import AugmentConfig, AugmentWay
from gristmill.generate.source import language_of
from gristmill.generate.wording import places


async def run(config: AugmentConfig, record: Sample, ctx: StepContext) -> list[Sample]:
    _fit(config, record)
    if ctx.rng(record, "share").random() >= config.share:
        raise Reject("not drawn", f"`share` is {config.share}")
    job, made = Job.of(config, record, ctx), dict[str, Sample]()
    for way in config.ways:
        for variant in await _WAYS[way](job):
            made[variant.id] = variant
    if not made:
        raise Reject("no variant passed its checks", record.text[:200])
    return list(made.values())


def _fit(config: AugmentConfig, record: Sample) -> None:
    if record.form != "labelled":
        raise Reject("not a labelled row", record.form)
    split = record.marks.get("split")
    if split is None:
        raise Reject("no split", "put curate.split before, or say split: train where the rows are read")
    if split != "train":
        raise Reject("held out", f"marked {split}: only training rows have variants")
    if record.label not in config.labels:
        raise Reject("unknown label", f"{record.label}; `labels` says {', '.join(config.labels)}")
    if len(record.spans) > 1:
        raise Reject("several aspects", "a row is about one: make a row of each")
    if record.spans and places(record.text, record.text[slice(*record.spans[0])]) != [record.spans[0]]:
        raise Reject("aspect not once in its text", record.text[slice(*record.spans[0])])


async def _contexts(job: Job, way: AugmentWay, *, label: str) -> list[Sample]:
    """Texts that keep the aspect and change the words around it."""
    asked = job.texts(f"augment_{way}", "texts", job.record, label=job.record.label, wanted=label)
    return await _kept(job, way, await job.tried(way, asked) or [], label)


async def _kept(job: Job, way: AugmentWay, offers: list[Offer], label: str) -> list[Sample]:
    """The offers that hold the aspect verbatim, exactly once, and pass the check of a new context."""
    made = []
    for offer in offers:
        found = places(offer.text, job.aspect(job.record)) if job.record.spans else [None]
        if len(found) != 1:
            job.ctx.count(**{f"{way}: aspect {'more than once' if found else 'gone'}": 1})
            continue
        made.append(await job.checked(Variant(way, offer.text, found[0], label, job.record, offer), job.new_context))
    return [row for row in made if row]


async def _cda(job: Job) -> list[Sample]:
    """Made once for a row: CADA goes on from them."""
    if job.contexts is None:
        job.contexts = await _contexts(job, "cda", label=job.record.label)
    return job.contexts


async def _counterfactual(job: Job) -> list[Sample]:
    """The same aspect under each other label."""
    made: list[Sample] = []
    for label in job.config.labels:
        if label != job.record.label:
            made += await _contexts(job, "counterfactual", label=label)
    return made


async def _back_translation(job: Job) -> list[Sample]:
    offers = [await job.tried("back_translation", _there_and_back(job, pivot)) for pivot in job.config.pivots]
    return await _kept(job, "back_translation", [offer for offer in offers if offer], job.record.label)


async def _there_and_back(job: Job, pivot: str) -> Offer:
    """On the way back the translator is told what the aspect was called."""
    prompt, text = job.ctx.prompt("augment_translate"), job.record.text
    note = f'One term is to read: "{job.aspect(job.record)}"\n' if job.record.spans else ""
    there = language_of(pivot, job.record.language)
    first = await job.said(prompt.render(text=text, note="", language=there.name), len(text))
    second = await job.said(prompt.render(text=first.value, note=note, language=job.language.name), len(text))
    return Offer(second.value, prompt.ref, second.answer.model, first.calls + second.calls)


async def _ada(job: Job) -> list[Sample]:
    return await _aspects(job, job.record, "ada", most=job.config.variants)


async def _cada(job: Job) -> list[Sample]:
    """What CDA gives is given to ADA. A row of CDA that is not asked for itself is only a step on the way."""
    made = []
    for base in await _cda(job):
        made += await _aspects(job, base, "cada", most=1)
    return made


async def _aspects(job: Job, base: Sample, way: AugmentWay, *, most: int) -> list[Sample]:
    """The same context around other aspects; code puts them in, so that every other byte stays. Once there are enough,
    no further one is judged."""
    if not base.spans:
        job.ctx.count(**{f"{way}: no aspect": 1})
        return []
    start, end = base.spans[0]
    made: list[Sample] = []
    before = base.origin.calls if base.origin and base is not job.record else ()
    asked = job.texts("augment_ada", "terms", base, label=base.label)
    for offer in await job.tried(way, asked) or []:
        if len(made) == most:
            break
        aspect = offer.text.strip(" .\n")
        text, span = base.text[:start] + aspect + base.text[end:], (start, start + len(aspect))
        offer = replace(offer, calls=before + offer.calls)
        if row := await job.checked(Variant(way, text, span, base.label, base, offer), job.new_aspect):
            made.append(row)
    return made


_WAYS: dict[AugmentWay, Callable[[Job], Awaitable[list[Sample]]]] = {
    "cda": _cda,
    "ada": _ada,
    "cada": _cada,
    "counterfactual": _counterfactual,
    "back_translation": _back_translation,
}
