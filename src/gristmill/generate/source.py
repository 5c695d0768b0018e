"""What a record lets a writer work from: numbered sentences, each with its quote, and where they stand.

The model names a sentence by its number; the words of the quote and their place in the document come from here. Kinds
that take facts see one sentence, the fact's own quote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Document, Fact, Message, Quote, Record, Sample
from gristmill.core.stage import StepContext
from gristmill.core.statements import statements, wanted_of
from gristmill.generate.languages import code_of, names
from gristmill.generate.spans import names_in

_BEFORE = 300  # characters of what was said just before a sentence


@dataclass(frozen=True)
class Sentence:
    number: int  # from 1, as the model sees it
    text: str
    before: str  # what was said just before it; may be empty
    quote: Quote


@dataclass(frozen=True)
class Source:
    chunk: Chunk
    place: str  # title and headings, outermost first
    topic: str  # title and innermost heading, as one phrase
    sentences: tuple[Sentence, ...]
    names: frozenset[str]  # words of the chunk that are written with a capital

    def numbered(self) -> str:
        """The sentences as a prompt shows them."""
        return "\n".join(f"{sentence.number}. {sentence.text}" for sentence in self.sentences)

    def sentence(self, number: int) -> Sentence:
        return self.sentences[number - 1]

    def whole(self) -> Quote:
        """All of it as one quote."""
        first, last = self.sentences[0].quote, self.sentences[-1].quote
        text = self.chunk.text[first.start - self.chunk.start : last.end - self.chunk.start]
        pages = tuple(sorted({page for sentence in self.sentences for page in sentence.quote.pages}))
        return Quote(text=text, start=first.start, end=last.end, path=self.chunk.path, pages=pages)


def source_of(record: Record, ctx: StepContext) -> Source:
    """Sentences to write about: all that state something, or those that `curate.gaps` marked. A record without a chunk
    above it, or without a sentence, is rejected."""
    chunk = record if isinstance(record, Chunk) else ctx.ancestor(record, Chunk)
    if chunk is None:
        raise Reject("no chunk", f"{record.type} {record.id} has no chunk above it")
    if isinstance(record, Fact):
        sentences: tuple[Sentence, ...] = (Sentence(1, record.quote.text, record.statement, record.quote),)
    else:
        sentences = tuple(_sentences(chunk, ctx.ancestor(chunk, Document)))
    if not sentences:
        raise Reject("no sentence", "nothing but headings and fragments")
    steps = _steps(chunk)
    names = names_in(chunk.text[start:end] for start, end in chunk.sentences)
    return Source(chunk, place_of(chunk), ", ".join([*steps[:1], *steps[1:][-1:]]) or chunk.path, sentences, names)


def quotes_of(record: Record, ctx: StepContext) -> tuple[Quote, ...]:
    """What a record rests on: its own quotes, or those of the samples, facts or chunks that it was made from."""
    made_from = (record, *ctx.ancestors(record, Record))
    if found := [quote for each in made_from if isinstance(each, Sample) for quote in each.quotes]:
        return tuple(dict.fromkeys(found))
    facts = [each.quote for each in made_from if isinstance(each, Fact)]
    chunks = [each for each in made_from if isinstance(each, Chunk)]
    whole = [Quote(text=c.text, start=c.start, end=c.end, path=c.path, pages=c.pages) for c in chunks]
    return tuple(facts or whole)


def place_of(chunk: Chunk) -> str:
    """Where a chunk stands: title and headings, outermost first."""
    return " > ".join(_steps(chunk))


def _steps(chunk: Chunk) -> list[str]:
    return [step for step in dict.fromkeys((chunk.title, *chunk.headings)) if step]


def _sentences(chunk: Chunk, document: Document | None) -> Iterator[Sentence]:
    wanted = wanted_of(chunk)
    said: list[str] = []
    number = 0
    for start, end in statements(chunk):
        text = chunk.text[start:end]
        if wanted is None or (start, end) in wanted:
            number += 1
            at = chunk.start + start
            pages = _pages(chunk, document, at, at + len(text))
            quote = Quote(text=text, start=at, end=at + len(text), path=chunk.path, pages=pages)
            yield Sentence(number, " ".join(text.split()), _tail(said[-2:]), quote)
        said.append(" ".join(text.split()))


def _tail(said: list[str]) -> str:
    text = " ".join(said)
    return text if len(text) <= _BEFORE else said[-1][-_BEFORE:]


def _pages(chunk: Chunk, document: Document | None, start: int, end: int) -> tuple[int, ...]:
    """The pages a quote touches; all pages of its chunk when the document is not among the ancestors."""
    if document is None or not document.pages:
        return chunk.pages
    return tuple(page.number for page in document.pages if page.start < end and start < page.end)


@dataclass(frozen=True)
class Language:
    code: str  # ISO 639 where it is known
    name: str  # as a prompt says it


def language_of(wanted: str | None, source: str) -> Language:
    """The language to write in: the source's, or the one a recipe names by code or by its English name."""
    text = wanted or source
    code = code_of(text)
    return Language(code, names().get(code, text))


def chat(question: str, answer: str) -> tuple[Message, ...]:
    """One question and its answer; the loss sees the answer."""
    return (Message(role="user", content=question), Message(role="assistant", content=answer, train=True))


def distinct(samples: list[Sample]) -> list[Sample]:
    """Each id once, in order: two ways of asking may come to the same words."""
    return list({sample.id: sample for sample in samples}.values())
