"""Facts of a chunk. The model says which sentence states what; the quote and its place are copied by code."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, create_model

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Fact
from gristmill.core.stage import StepContext
from gristmill.generate.stages import FactsConfig
from gristmill.generate.wording import check_statement, one_line
from gristmill.generate.writer import Writer

_FACT_TOKENS = 110  # one statement with its JSON, at most


class StatedFact(BaseModel):
    sentence: int
    statement: Annotated[str, Field(min_length=8, max_length=300)]


class Facts(BaseModel):
    """The answer's shape; `schema` bounds it by what was asked."""

    facts: list[StatedFact]


def schema(sentences: int, most: int) -> type[Facts]:
    """At most `most` facts, each naming one of the sentences."""
    number = Annotated[int, Field(ge=1, le=sentences)]
    item = create_model("StatedFact", __base__=StatedFact, sentence=(number, ...))
    items = Annotated[list[item], Field(min_length=1, max_length=most)]
    return create_model("Facts", __base__=Facts, facts=(items, ...))


async def run(config: FactsConfig, record: Chunk, ctx: StepContext) -> list[Fact]:
    writer = Writer.of(config, record, ctx)
    facts = await (_structured if config.ask == "structured" else _lines)(writer, config)
    if not facts:
        raise Reject("no usable fact")
    return list({fact.id: fact for fact in facts}.values())


async def _structured(writer: Writer, config: FactsConfig) -> list[Fact]:
    source, prompt = writer.source, writer.ctx.prompt("facts")
    parsed = await writer.model.structured(
        prompt.render(
            place=source.place, sentences=source.numbered(), count=config.per_chunk, language=writer.language.name
        ),
        schema(len(source.sentences), config.per_chunk),
        max_tokens=60 + _FACT_TOKENS * config.per_chunk,
        temperature=config.temperature,
    )
    facts = []
    for stated in parsed.value.facts:
        try:
            statement = check_statement(stated.statement.strip())
        except ValueError:
            writer.ctx.count(**{"facts that do not stand alone": 1})
            continue
        quote = source.sentence(stated.sentence).quote
        facts.append(
            Fact(
                statement=statement,
                quote=quote,
                language=writer.language.code,
                parents=(writer.record.id,),
                origin=writer.origin(prompt, parsed),
            )
        )
    return facts


async def _lines(writer: Writer, config: FactsConfig) -> list[Fact]:
    """One call a sentence."""
    prompt = writer.ctx.prompt("facts_line")
    facts = []
    for sentence in writer.source.sentences[: config.per_chunk]:
        written = await writer.line(prompt, sentence, lambda text: check_statement(one_line(text)))
        if written:
            facts.append(
                Fact(
                    statement=written.text,
                    quote=sentence.quote,
                    language=writer.language.code,
                    parents=(writer.record.id,),
                    origin=written.origin,
                )
            )
    return facts
