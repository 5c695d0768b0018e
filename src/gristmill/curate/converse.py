"""Joins single questions and answers to conversations, so that a row of training holds many turns and few headers.

Neighbours come from different places: a model must not learn to copy an answer from the turn before. Members are
shuffled by seed and id, so that the conversations don't depend on the order in which samples arrive.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator

from gristmill.core.records import Chunk, Origin, Quote, Record, Sample, digest_of
from gristmill.core.stage import PassContext, PassResult, samples
from gristmill.curate.stages import ConverseConfig


def _joinable(sample: Sample) -> bool:
    single = [message.role for message in sample.messages] == ["user", "assistant"]
    return sample.form == "chat" and single and sample.marks.get("split", "train") == "train"


def _place(sample: Sample, ctx: PassContext) -> str:
    chunk = ctx.ancestor(sample, Chunk)
    return chunk.id if chunk else "\n".join(quote.path for quote in sample.quotes)


def _rounds(members: list[Sample], turns: int, ctx: PassContext) -> Iterator[list[Sample]]:
    """Groups of `turns`, each filled from as many places as there are, those with the most samples left first."""
    places: dict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(members, key=lambda sample: digest_of([ctx.seed, sample.id])):
        places[_place(sample, ctx)].append(sample)
    heap = [_entry(ctx.seed, place, left) for place, left in places.items()]
    heapq.heapify(heap)
    last = ""
    while heap:
        group: list[Sample] = []
        while heap and len(group) < turns:
            used = [heapq.heappop(heap) for _ in range(min(len(heap), turns - len(group)))]
            if group and len(used) > 1 and used[0][2] == last:
                used.append(used.pop(0))
            last = used[-1][2]
            group += [places[place].pop() for _, _, place in used]
            for _, _, place in used:
                if places[place]:
                    heapq.heappush(heap, _entry(ctx.seed, place, places[place]))
        yield group


def _entry(seed: int, place: str, left: list[Sample]) -> tuple[int, str, str]:
    return -len(left), digest_of([seed, place, len(left)]), place


def _conversation(members: list[Sample], ctx: PassContext) -> Sample:
    quotes: dict[Quote, None] = {quote: None for sample in members for quote in sample.quotes}
    return Sample(
        form="chat",
        kind="conversation",
        messages=tuple(message for sample in members for message in sample.messages),
        quotes=tuple(quotes),
        language=members[0].language,
        parents=tuple(sample.id for sample in members),
        marks={"split": members[0].marks["split"]} if "split" in members[0].marks else {},
        origin=Origin(stage=ctx.stage),
    )


def run(config: ConverseConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    members: dict[tuple[str, bool], list[Sample]] = defaultdict(list)
    for sample in samples(records):
        if _joinable(sample):
            members[sample.language, "split" in sample.marks].append(sample)
        else:
            yield sample
    for key in sorted(members):
        for group in _rounds(members[key], config.turns, ctx):
            yield _conversation(group, ctx) if len(group) > 1 else group[0]
