"""Joins single questions and answers to conversations, so that a row of training holds many turns and few headers.

Neighbours come from different places: a model must not learn to copy an answer from the turn before. Members are
shuffled by seed and id, so that the conversations don't depend on the order in which samples arrive.

With `learn: each` a group gives as many conversations as it has members: in each of them one member's answer is
learned, below that member's own system message. What the others rest on (passages, say) does not stand there: learning
them too would teach to make answers up.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator

from gristmill.core.passages import MARK as RETRIEVAL
from gristmill.core.records import Chunk, Message, Origin, Quote, Record, Sample, digest_of
from gristmill.core.stage import PassContext, PassResult, samples
from gristmill.core.thoughts import MARK as THOUGHTS
from gristmill.curate.stages import ConverseConfig


def _joinable(sample: Sample, config: ConverseConfig) -> bool:
    roles = [message.role for message in sample.messages]
    single = (roles[1:] if config.learn == "each" and roles[:1] == ["system"] else roles) == ["user", "assistant"]
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
    return _joined(members, tuple(message for sample in members for message in sample.messages), ctx)


def _each(members: list[Sample], ctx: PassContext) -> Iterator[Sample]:
    """The same turns for each member, of which its own are learned."""
    turns = {sample.id: sample.messages[-2:] for sample in members}
    for sample in members:
        said = [m if own == sample.id else _silent(m) for own, pair in turns.items() for m in pair]
        yield _joined(members, (*sample.messages[:-2], *said), ctx, about=sample)


def _silent(message: Message) -> Message:
    return message.model_copy(update={"train": False})


def _joined(
    members: list[Sample], messages: tuple[Message, ...], ctx: PassContext, *, about: Sample | None = None
) -> Sample:
    """`about`: the one member whose answer is learned. Its quotes are what the sample rests on, and it is the first
    parent: the nearest source of a conversation is that of what it teaches."""
    taught = [about] if about else members
    quotes: dict[Quote, None] = {quote: None for sample in taught for quote in sample.quotes}
    marks = {name: members[0].marks[name] for name in ("split",) if name in members[0].marks}
    if about and RETRIEVAL in about.marks:
        marks[RETRIEVAL] = about.marks[RETRIEVAL]
    if any(sample.marks.get(THOUGHTS) for sample in taught):
        marks[THOUGHTS] = True
    return Sample(
        form="chat",
        kind="conversation",
        messages=messages,
        quotes=tuple(quotes),
        language=members[0].language,
        parents=tuple(dict.fromkeys(sample.id for sample in (*taught, *members))),
        marks=marks,
        origin=Origin(stage=ctx.stage),
    )


def run(config: ConverseConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    members: dict[tuple[str, bool], list[Sample]] = defaultdict(list)
    for sample in samples(records):
        if _joinable(sample, config):
            members[sample.language, "split" in sample.marks].append(sample)
        else:
            yield sample
    for key in sorted(members):
        for group in _rounds(members[key], config.turns, ctx):
            if len(group) == 1:
                yield group[0]
            elif config.learn == "each":
                yield from _each(group, ctx)
            else:
                yield _conversation(group, ctx)
