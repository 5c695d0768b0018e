"""Which passages belong together: each chunk with those nearest to it by words and meaning (`retrieve`).

Code chooses everything here, by seed: the chunks that are asked about, the sentence that a question begins from, and
the sentence of another passage that goes with it. So a step later needs nothing but its own record.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from pydantic import JsonValue

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Draft, Record, digest_of
from gristmill.core.stage import Dropped, PassContext, PassResult, StepContext
from gristmill.generate.recall.claims import numbered
from gristmill.generate.recall.group import whole_source
from gristmill.generate.recall.stages import RecallConfig, Way
from gristmill.generate.source import Sentence, Source, source_of
from gristmill.generate.spans import pick
from gristmill.generate.wording import opens_with_pronoun
from gristmill.retrieve import Index, embed_with, packed, unpacked

VECTOR = "vector"
"""Mark of a chunk: its embedding by a role, for the passes of this kind."""

_ALIKE = 0.25  # cosine of two sentences from which they belong together
_QUERY = 4000  # characters of a chunk that its neighbours are looked for by


async def vectors(config: RecallConfig, record: Chunk, ctx: StepContext) -> list[Chunk]:
    """The chunk with its embedding, where a role makes it."""
    if config.embedding is None:
        return [record]
    (vector,) = await embed_with(ctx.model(config.embedding), [record.text])
    return [record.marked(**{VECTOR: packed(vector)})]


@dataclass(frozen=True)
class Corpus:
    """All chunks, searchable by the local embeddings or by a role's."""

    chunks: list[Chunk]
    index: Index

    @classmethod
    def of(cls, chunks: list[Chunk]) -> Corpus:
        """In the order of their ids: of documents that repeat each other, too, the same ones are found every time."""
        chunks = sorted(chunks, key=lambda chunk: chunk.id)
        marks = [str(chunk.marks[VECTOR]) for chunk in chunks if VECTOR in chunk.marks]
        return cls(chunks, Index([chunk.text for chunk in chunks], unpacked(marks) if marks else None))

    def near(self, text: str, count: int, *, vector: str | None = None) -> list[Chunk]:
        """The passages nearest to a text; `vector` is its embedding by a role, as a mark."""
        hits = self.index.search(text, count, vector=None if vector is None else unpacked([vector])[0])
        return [self.chunks[hit.number] for hit in hits]


def run(config: RecallConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """The chunks, then a draft for each question that will be asked: its parents are its sources, the anchor first."""
    chunks = list({record.id: record for record in records if isinstance(record, Chunk)}.values())
    corpus = Corpus.of(chunks)
    yield from chunks
    drawn = sorted(chunks, key=lambda chunk: digest_of([ctx.seed, "anchor", chunk.id]))[: config.anchors]
    wanted = {chunk.id for chunk in drawn}
    for chunk in chunks:
        if chunk.id in wanted:
            yield from _groups(config, chunk, corpus, ctx)


def _groups(config: RecallConfig, anchor: Chunk, corpus: Corpus, ctx: PassContext) -> Iterator[Draft | Dropped]:
    try:
        source = source_of(anchor, ctx)
    except Reject as reject:
        yield Dropped(anchor, reject.reason, reject.detail)
        return
    vector = anchor.marks.get(VECTOR)
    near = corpus.near(anchor.text[:_QUERY], config.sources, vector=None if vector is None else str(vector))
    others = [chunk for chunk in near if chunk.id != anchor.id][: config.sources - 1]
    sources = [source, *_readable(others, ctx)]
    partners, fitness = _partners(source, sources[1:]), _fitness(source)
    for way in config.ways:
        begun = [each for each in source.sentences if _may_begin(each, way, partners)]
        ctx.rng(anchor, way).shuffle(begun)
        begun.sort(key=lambda each: fitness[each.number])
        if (missing := config.per_chunk - len(begun)) > 0:
            ctx.count(**{f"{way}: no sentence to begin from": missing})
        for sentence in begun[: config.per_chunk]:
            goes_with: JsonValue = [*partners[sentence.number]] if sentence.number in partners else None
            data: dict[str, JsonValue] = {"way": way, "begin": sentence.quote.start, "with": goes_with}
            yield Draft(kind="recall", data=data, parents=tuple(each.chunk.id for each in sources))


def _readable(chunks: list[Chunk], ctx: PassContext) -> Iterator[Source]:
    for chunk in chunks:
        with suppress(Reject):  # headings and fragments alone: no passage that anything rests on
            yield whole_source(chunk, ctx)


def _may_begin(sentence: Sentence, way: Way, partners: Collection[int]) -> bool:
    """What takes something wrong for granted needs a number that can be changed; what compares, something alike."""
    if way == "false_premise":
        return numbered(sentence.text)
    return way != "comparison" or sentence.number in partners


def _fitness(source: Source) -> dict[int, tuple[bool, bool]]:
    """By its number, whether a sentence does not say of whom it speaks, and whether it holds nothing to ask for."""
    language, names = source.chunk.language, source.names
    return {
        each.number: (opens_with_pronoun(each.text), not pick(each.text, language=language, names=names))
        for each in source.sentences
    }


def _partners(source: Source, others: list[Source]) -> dict[int, tuple[int, int]]:
    """For each sentence that has one, by its number, the sentence of another passage that is nearest to it: which
    source (from 1), and where the sentence starts in its document."""
    own = {each.text for each in source.sentences}  # chunks may overlap, and documents repeat each other
    places = [(at, each) for at, other in enumerate(others, 1) for each in other.sentences if each.text not in own]
    index = Index([each.text for _, each in places])
    hits = {each.number: index.search(each.text, 1) for each in source.sentences} if places else {}
    near = {number: places[found[0].number] for number, found in hits.items() if found and found[0].cosine >= _ALIKE}
    return {number: (at, each.quote.start) for number, (at, each) in near.items()}
