"""A writer on a chunk or a whole document, and the texts it writes for training as they stand.

A document is read as one chunk whose sentences are its own; a draft, as what it was made of. What is written is refused
by code when it is empty, a copy, a loop, or goes on with the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import zip_longest
from math import ceil
from typing import TypeVar

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Document, Quote, Record, Sample, Span
from gristmill.core.stage import StepContext
from gristmill.generate.pretrain.stages import ReadingConfig
from gristmill.generate.source import Sentence, Source, language_of, source_of
from gristmill.generate.wording import check_prose, holds, opens_with_pronoun
from gristmill.generate.writer import Writer

T = TypeVar("T")

_SENTENCE = re.compile(
    r"\S.*?(?:[.!?…][\"'”’»)]*(?=\s)|[。！？][”’」』）]*|(?<=\S)(?=\s*\n\s*\n)|(?<=\S)\s*\Z)",
    re.DOTALL,
)
_WORDS = 0.6  # words that a token makes, said to the writer: cautious, as what is cut off is refused
_MORE = 30  # words that a text may have beyond its passage: more room is filled with repetition


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


def passages(source: Source, limit: int) -> list[tuple[Sentence, ...]]:
    """The sentences in stretches of about equal length, none above the limit of characters unless one sentence is."""
    total = sum(len(sentence.text) + 1 for sentence in source.sentences)
    target = total / ceil(total / limit)
    stretches: list[tuple[Sentence, ...]] = []
    held: tuple[Sentence, ...] = ()
    for sentence in source.sentences:
        length = len(shown((*held, sentence)))
        if held and (length > limit or len(shown(held)) >= target):
            stretches.append(held)
            held = ()
        held = (*held, sentence)
    return [*stretches, held]


async def of_each(
    stretches: Sequence[tuple[Sentence, ...]], asked: Callable[[str], Awaitable[T]], ctx: StepContext
) -> list[tuple[tuple[Sentence, ...], T]]:
    """What is said of each stretch. One that a model cannot handle must not cost the rest of its document: it is left
    out and counted, and only where none is left is the record rejected."""
    found = []
    for read in stretches:
        try:
            found.append((read, await asked(shown(read))))
        except Reject as reject:
            if not found and read is stretches[-1]:
                raise
            ctx.count(**{f"stretches with {reject.reason}": 1})
    return found


def shown(sentences: Sequence[Sentence]) -> str:
    return " ".join(sentence.text for sentence in sentences)


def naming(source: Source, names: Sequence[str], limit: int) -> list[Sentence]:
    """The sentences that name one of several things, or as many as can be shown: for each name in turn the next that
    names the most of them. One that opens with a pronoun comes with the sentence before it."""
    held = {s.number: [name for name in names if holds(s.text, name)] for s in source.sentences}
    best = sorted((number for number in held if held[number]), key=lambda number: (-len(held[number]), number))
    queues = [[number for number in best if name in held[number]] for name in names]
    chosen: set[int] = set()
    for number in (number for turn in zip_longest(*queues) for number in turn if number is not None):
        goes_on = opens_with_pronoun(source.sentence(number).text) and number > 1
        more = chosen | {number, number - 1} if goes_on else chosen | {number}
        if not chosen or len(shown([source.sentence(each) for each in more])) <= limit:
            chosen = more
    return [source.sentence(number) for number in sorted(chosen)]


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
            words=min(int(config.tokens * _WORDS), len(passage.split()) + _MORE),
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
