"""Facts of a chunk. The model says which sentence states what; the quote and its place are copied by code.

`inferred`: statements that no sentence makes alone. The quote reaches from the first sentence that a statement follows
from to the last, and code refuses a statement that one of them already holds, or that strings them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, groupby, pairwise
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, create_model

from gristmill.core.ask import Parsed
from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Fact, Origin
from gristmill.core.stage import StepContext
from gristmill.generate.source import Sentence, Source
from gristmill.generate.stages import FactsConfig
from gristmill.generate.wording import check_statement, is_one, one_line, takes_all
from gristmill.generate.writer import Writer

T = TypeVar("T")

_FACT_TOKENS = 110  # one statement with its JSON, at most
_FROM = 4  # sentences that a fact may follow from, at most


class StatedFact(BaseModel):
    sentence: int
    statement: Annotated[str, Field(min_length=8, max_length=300)]


class InferredFact(BaseModel):
    sentences: list[int]
    statement: Annotated[str, Field(min_length=8, max_length=300)]


class Facts(BaseModel):
    """The answer's shape; `schema` bounds it by what was asked."""

    facts: list[StatedFact] | list[InferredFact]


def schema(sentences: int, most: int, *, inferred: bool = False) -> type[Facts]:
    """At most `most` facts, each naming one of the sentences, or from two on."""
    number = Annotated[int, Field(ge=1, le=sentences)]
    several = Annotated[list[number], Field(min_length=2, max_length=_FROM)]
    item: Any = (
        create_model("InferredFact", __base__=InferredFact, sentences=(several, ...))
        if inferred
        else create_model("StatedFact", __base__=StatedFact, sentence=(number, ...))
    )
    items = Annotated[list[item], Field(min_length=1, max_length=most)]
    return create_model("Facts", __base__=Facts, facts=(items, ...))


async def run(config: FactsConfig, record: Chunk, ctx: StepContext) -> list[Fact]:
    writer = Writer.of(config, record, ctx)
    if config.inferred and len(writer.source.sentences) < 2:
        raise Reject("one sentence", "nothing follows from several")
    if config.ask == "structured":
        facts = await _structured(writer, config)
    else:
        facts = await (_inferred_lines if config.inferred else _lines)(writer, config)
    if not facts:
        raise Reject("no usable fact")
    return list({fact.id: fact for fact in facts}.values())


async def _structured(writer: Writer, config: FactsConfig) -> list[Fact]:
    source, prompt = writer.source, writer.ctx.prompt("facts_inferred" if config.inferred else "facts")
    parsed: Parsed[Facts] = await writer.model.structured(
        prompt.render(
            place=source.place, sentences=source.numbered(), count=config.per_chunk, language=writer.language.name
        ),
        schema(len(source.sentences), config.per_chunk, inferred=config.inferred),
        max_tokens=60 + _FACT_TOKENS * config.per_chunk,
        temperature=config.temperature,
    )
    facts = []
    for said in parsed.value.facts:
        numbers = said.sentences if isinstance(said, InferredFact) else [said.sentence]
        used = [source.sentence(number) for number in sorted(set(numbers))]
        try:
            statement = check_statement(said.statement.strip())
        except ValueError:
            writer.ctx.count(**{"facts that do not stand alone": 1})
            continue
        if isinstance(said, InferredFact) and not _follows(statement, used, writer):
            writer.ctx.count(**{"facts that do not take several sentences": 1})
            continue
        facts.append(_fact(writer, statement, used, writer.origin(prompt, parsed)))
    return facts


async def _lines(writer: Writer, config: FactsConfig) -> list[Fact]:
    """One call a sentence."""
    prompt = writer.ctx.prompt("facts_line")
    facts = []
    for sentence in _spread(writer.source.sentences, config.per_chunk, writer):
        written = await writer.line(prompt, sentence, lambda text: check_statement(one_line(text)))
        if written:
            facts.append(_fact(writer, written.text, [sentence], written.origin))
    return facts


async def _inferred_lines(writer: Writer, config: FactsConfig) -> list[Fact]:
    """One call for each pair of sentences that belong together."""
    prompt = writer.ctx.prompt("facts_inferred_line")
    facts = []
    for pair in _linked(writer, config.per_chunk):

        def check(text: str, used: list[Sentence] = pair) -> str:
            statement = check_statement(one_line(text))
            if not _follows(statement, used, writer):
                raise ValueError("write one sentence that links what both say: neither alone, nor one after the other")
            return statement

        written = await writer.line(prompt, pair[1], check, other=pair[0].text)
        if written:
            facts.append(_fact(writer, written.text, pair, written.origin))
    return facts


def _spread(items: Sequence[T], most: int, writer: Writer) -> list[T]:
    """In document order one of each of so many equal stretches, drawn by seed; all where there are no more."""
    count, rng = min(most, len(items)), writer.ctx.rng(writer.record, "facts")
    edges = [at * len(items) // count for at in range(count)] + [len(items)]
    return [rng.choice(items[start:end]) for start, end in pairwise(edges)]


def _linked(writer: Writer, most: int) -> list[list[Sentence]]:
    """Pairs of sentences that name something in common, or that follow on each other; near ones before distant ones,
    of equally near ones some from all over the chunk."""

    def apart(pair: list[Sentence]) -> int:
        return pair[1].number - pair[0].number

    source, found = writer.source, list[list[Sentence]]()
    pairs = [[a, b] for a, b in combinations(source.sentences, 2) if b.number == a.number + 1 or _share(a, b, source)]
    for _, equal in groupby(sorted(pairs, key=apart), key=apart):
        found += _spread(list(equal), most - len(found), writer)
    return sorted(found, key=lambda pair: (pair[0].number, pair[1].number))


def _share(one: Sentence, other: Sentence, source: Source) -> bool:
    return any(name in one.text and name in other.text for name in source.names)


def _follows(statement: str, used: list[Sentence], writer: Writer) -> bool:
    """Whether a statement is one sentence and takes several. In another language than theirs the second cannot be told
    by words."""
    if len(used) < 2 or not is_one(statement):
        return False
    translated = writer.language.code != writer.source.chunk.language
    return translated or takes_all(statement, [sentence.text for sentence in used])


def _fact(writer: Writer, statement: str, used: list[Sentence], origin: Origin) -> Fact:
    """The quote reaches from the first of the sentences to the last."""
    between = writer.source.sentences[used[0].number - 1 : used[-1].number]
    return Fact(
        statement=statement,
        quote=replace(writer.source, sentences=between).whole(),
        language=writer.language.code,
        marks={"inferred": True} if len(used) > 1 else {},
        parents=(writer.record.id,),
        origin=origin,
    )
