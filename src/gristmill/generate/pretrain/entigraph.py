"""EntiGraph: a small corpus made large through the relations that it implies.

Yang, Band, Li, Candès, Hashimoto: Synthetic continued pretraining (arXiv 2409.07431). Entities E1..En of a source are
named; then, for pairs and triples of them, a text is written on how they are connected according to that source. Read
one after the other, the texts walk the graph of what the source knows, in orders that the source itself never has.

Of the paper's two calls to a model, small writers make the second alone: names are found by code. Which pairs and
triples are written about is drawn by seed, and a larger cap keeps those of a smaller one.
"""

from __future__ import annotations

import re
from itertools import combinations
from typing import Annotated

from pydantic import BaseModel, Field, create_model

from gristmill.core.ask import Parsed
from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Document, Draft, Origin, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.pretrain.reading import naming, of_each, passages, shown, writer_of, written
from gristmill.generate.pretrain.stages import EntigraphConfig
from gristmill.generate.source import Source
from gristmill.generate.spans import pick
from gristmill.generate.wording import holds
from gristmill.generate.writer import Writer

_ENTITY_TOKENS = 24  # one name with its JSON, at most
_JOINED = re.compile(r",\s|,?\s(?:and|und|et|y)\s|\s&\s")
_NAMING = ("name", "quoted", "noun")


class Entities(BaseModel):
    """The answer's shape; `schema` bounds it by what was asked."""

    entities: list[str]


def schema(most: int) -> type[Entities]:
    item = Annotated[str, Field(min_length=2, max_length=80)]
    return create_model("Entities", __base__=Entities, entities=(Annotated[list[item], Field(max_length=most)], ...))


async def entities(config: EntigraphConfig, record: Chunk | Document, ctx: StepContext) -> list[Draft]:
    """The pairs and triples of a record: one draft for each text that will be written."""
    writer = writer_of(config, record, ctx)
    source = writer.source
    found, origin = (_by_code(source), None) if config.ask == "line" else await _by_model(writer, config)
    named = ranked(found, source)[: config.entities]
    groups = [
        *_drawn(named, 2, config.pairs, record, ctx),
        *_drawn(named, 3, config.triples, record, ctx),
    ]
    if not groups:
        raise Reject("fewer than two entities", ", ".join(named))
    return [
        Draft(kind="entigraph", data={"entities": list(group)}, parents=(record.id,), origin=origin) for group in groups
    ]


def _by_code(source: Source) -> list[str]:
    spans = [
        span
        for sentence in source.sentences
        for span in pick(sentence.text, language=source.chunk.language, names=source.names)
        if span.kind in _NAMING
    ]
    return [part for span in spans for part in _JOINED.split(span.text)]


async def _by_model(writer: Writer, config: EntigraphConfig) -> tuple[list[str], Origin]:
    """Asked of each stretch of the source that can be shown at once. What the source does not hold is left out."""
    prompt = writer.ctx.prompt("pretrain_entities")

    async def asked(passage: str) -> Parsed[list[str]]:
        parsed = await writer.model.structured(
            prompt.render(
                place=writer.source.place, passage=passage, count=config.entities, language=writer.language.name
            ),
            schema(config.entities),
            max_tokens=40 + _ENTITY_TOKENS * config.entities,
            temperature=config.temperature,
        )
        held = [name.strip() for name in parsed.value.entities if holds(passage, name)]
        writer.ctx.count(**{"entities that are not in the source": len(parsed.value.entities) - len(held)})
        return Parsed(held, parsed.answer, parsed.calls)

    answers = [answer for _, answer in await of_each(passages(writer.source, config.passage), asked, writer.ctx)]
    calls = tuple(call for answer in answers for call in answer.calls)
    named = [name for answer in answers for name in answer.value]
    return named, Origin(stage=writer.ctx.stage, prompt=prompt.ref, model=answers[-1].answer.model, calls=calls)


def ranked(found: list[str], source: Source) -> list[str]:
    """Each name once, those that are spoken of most first; as written where it stands first."""
    distinct = list({name.casefold(): name for name in reversed(found) if len(name) > 1}.values())[::-1]
    text = " ".join(sentence.text for sentence in source.sentences).casefold()
    return sorted(distinct, key=lambda name: (-text.count(name.casefold()), text.find(name.casefold())))


def _drawn(named: list[str], size: int, most: int, record: Chunk | Document, ctx: StepContext) -> list[tuple[str, ...]]:
    """Groups of names, none of which holds another: the parts of a name are not connected, they are it."""
    groups = [
        group
        for group in combinations(named, size)
        if not any(one.casefold() in other.casefold() for one in group for other in group if one != other)
    ]
    ctx.rng(record, size).shuffle(groups)
    return groups[:most]


async def run(config: EntigraphConfig, record: Draft, ctx: StepContext) -> list[Sample]:
    """One text on one group. It names each of them, and rests on the sentences that do."""
    writer = writer_of(config, record, ctx)
    group = [str(name) for name in record.data["entities"]]  # type: ignore[union-attr]
    source = writer.source
    read = naming(source, group, config.passage)
    if not read:
        raise Reject("no sentence names them", ", ".join(group))
    whole = shown(source.sentences)
    translated = writer.language.code != source.chunk.language  # names may be spelled otherwise there
    sample = await written(
        writer,
        config,
        "pretrain_entigraph",
        whole if len(whole) <= config.passage else shown(read),
        quotes=tuple(sentence.quote for sentence in read),
        named=() if translated else group,
        entities="\n".join(f"- {name}" for name in group),
    )
    return [sample]
