"""A writer on a chunk or a whole document, and the texts it writes for training as they stand.

A document is read as one chunk whose sentences are its own; a draft, as what it was made of. What is written is refused
by code when it is empty, a copy, a loop, or goes on with the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Document, Quote, Record, Sample, Span
from gristmill.core.stage import StepContext
from gristmill.generate.pretrain.stages import ReadingConfig
from gristmill.generate.source import Sentence, Source, language_of, source_of
from gristmill.generate.wording import check_prose
from gristmill.generate.writer import Writer

_SENTENCE = re.compile(r"\S.*?(?:[.!?…。！？][\"'”’»)]*(?=\s)|(?=\s*\n\s*\n)|\s*\Z)", re.DOTALL)
_WORDS = 0.6  # words that a token makes, said to the writer: cautious, as what is cut off is refused


def writer_of(config: ReadingConfig, record: Record, ctx: StepContext) -> Writer:
    """The chunk is the record, or above it; without one, the document."""
    own = record if isinstance(record, Chunk | Document) else None
    place = own or ctx.ancestor(record, Chunk) or ctx.ancestor(record, Document)
    if place is None:
        raise Reject("no chunk or document", f"{record.type} {record.id} has none above it")
    source = source_of(as_chunk(place) if isinstance(place, Document) else place, ctx)
    language = language_of(config.language, source.chunk.language)
    return Writer(config, record, ctx, ctx.model(config.model), source, language)


def as_chunk(document: Document) -> Chunk:
    """A whole document, its headings left out of the sentences."""
    heads = [(block.start, block.end) for block in document.blocks if block.kind == "heading"]
    return Chunk(
        path=document.path,
        title=document.title,
        text=document.text,
        start=0,
        end=len(document.text),
        pages=tuple(page.number for page in document.pages),
        sentences=tuple(_sentences(document.text, heads)),
        tokens=len(document.text) // 4,
        language=document.language,
        parents=(document.id,),
    )


def _sentences(text: str, heads: list[Span]) -> Iterator[Span]:
    start = 0
    while hit := _SENTENCE.search(text, start):
        head = next((head for head in heads if head[0] <= hit.start() < head[1]), None)
        if head is None:
            yield hit.start(), hit.start() + len(hit[0].rstrip())
        start = max(hit.end(), head[1] if head else 0)


def shown(sentences: tuple[Sentence, ...], limit: int) -> str:
    """Sentences as a passage; one that would pass the limit of characters is a Reject."""
    text = " ".join(sentence.text for sentence in sentences)
    if len(text) > limit:
        raise Reject("longer than `passage`", f"{len(text)} characters; raise `passage`, or give it chunks")
    return text


def around(source: Source, wanted: Callable[[Sentence], bool], limit: int) -> str:
    """All sentences; where they are too long to show, the wanted ones, each after the one before it, as many as fit."""
    if sum(len(sentence.text) + 1 for sentence in source.sentences) <= limit:
        return shown(source.sentences, limit)
    chosen: dict[int, str] = {}
    for sentence in filter(wanted, source.sentences):
        for each in source.sentences[max(0, sentence.number - 2) : sentence.number]:
            if each.number not in chosen and sum(map(len, chosen.values())) + len(chosen) + len(each.text) < limit:
                chosen[each.number] = each.text
    return " ".join(chosen[number] for number in sorted(chosen))


async def written(
    writer: Writer,
    config: ReadingConfig,
    prompt: str,
    passage: str,
    *,
    quotes: tuple[Quote, ...],
    named: Sequence[str] = (),
    **values: object,
) -> Sample:
    """One text as a sample, which speaks of all that is `named`. A small writer is not asked again: it seldom does
    better."""

    def parse(answer: str) -> str:
        text = check_prose(answer, source=passage)
        if missing := [name for name in named if not _spoken_of(name, text)]:
            raise ValueError(f"write about each of them by name; {missing[0]} is missing")
        return text

    used, place = writer.ctx.prompt(prompt), writer.source.place
    parsed = await writer.model.ask(
        used.render(
            place=f"{config.about} > {place}" if config.about else place,
            passage=passage,
            words=int(config.tokens * _WORDS),
            language=writer.language.name,
            **values,
        ),
        parse,
        max_tokens=config.tokens,
        temperature=config.temperature,
        attempts=1 if config.ask == "line" else 3,
    )
    head = f"{place}\n\n" if config.context and place else ""
    return Sample(
        form="text",
        kind=config.kind.partition(".")[2],
        text=head + parsed.value,
        quotes=quotes,
        language=writer.language.code,
        parents=(writer.record.id,),
        origin=writer.origin(used, parsed),
    )


def _spoken_of(name: str, text: str) -> bool:
    """Its longest word stands in the text, whatever its ending: names are inflected in many languages."""
    longest = max(name.casefold().split(), key=len)
    return longest[: max(3, len(longest) - 2)] in text.casefold()
