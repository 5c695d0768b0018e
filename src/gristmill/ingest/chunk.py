"""Documents to chunks: whole paragraphs packed up to so many tokens, never across the headings that divide the
document.

Each paragraph is counted once, each chunk once more. A paragraph too long is cut at its sentences (tables, lists,
code: at their lines), a sentence too long at words. A chunk begins at its first text: the headings above it are in
`headings`; where several short sections share a chunk, their own headings stand inside its text and `headings`
holds what they have in common.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile

from gristmill.core.errors import Reject
from gristmill.core.records import Block, Chunk, Document, Span
from gristmill.core.stage import StepContext
from gristmill.ingest.sentences import sentence_spans, trimmed
from gristmill.ingest.stages import ChunkConfig
from gristmill.ingest.tokenizer import counter

Count = Callable[[str], int]
Headings = tuple[Block, ...]  # the headings above a place, outermost first

SEPARATOR = 2  # tokens that an empty line between two blocks may cost
FULL_ENOUGH = 0.5  # share of `tokens` from which a lower heading begins a new chunk
_MARKER = re.compile(r"\s*(?:[-*•–▪◦●‣]|\(?\d{1,3}[.)]|[a-z]\))\s+")
_LINES = ("list", "table", "code")


@dataclass(frozen=True)
class Unit:
    """What is packed whole: a block, or a piece of one that is too long."""

    start: int
    end: int
    tokens: int
    above: Headings
    sentences: tuple[Span, ...]  # in characters of the document
    heading: bool = False


async def run(config: ChunkConfig, record: Document, ctx: StepContext) -> list[Chunk]:
    found = await asyncio.to_thread(chunks, record, config, counter(config, ctx.base))
    if not found:
        raise Reject("nothing but headings")
    return found


def chunks(document: Document, config: ChunkConfig, count: Count) -> list[Chunk]:
    """All chunks of a document, in order. `count`: tokens of a text."""
    units = list(_units(document, config.tokens, count))
    groups = _pack(document, units, config, count)
    return [chunk for group in groups for chunk in _fitted(document, group, config.tokens, count)]


def _fitted(document: Document, group: list[Unit], limit: int, count: Count) -> Iterator[Chunk]:
    """The group as one chunk, its real tokens counted; as two where text costs more together than in pieces (rare)."""
    chunk = _chunk(document, group, count)
    texts = [at for at, unit in enumerate(group) if not unit.heading]
    if chunk.tokens <= limit or len(texts) == 1:
        yield chunk
        return
    half = texts[len(texts) // 2]
    while group[half - 1].heading:
        half -= 1
    yield from _fitted(document, group[:half], limit, count)
    yield from _fitted(document, group[half:], limit, count)


def sentences_of(document: Document, block: Block) -> list[Span]:
    """Sentences of a block, in characters of the document. Rows and items are sentences by their lines, their
    markers left out; headings and code have none."""
    if block.kind in ("heading", "code"):
        return []
    lines = list(_lines(document.text, block)) if block.kind in _LINES else [(block.start, block.end)]
    spans: list[Span] = []
    for start, end in lines:
        if block.kind == "list" and (mark := _MARKER.match(document.text, start, end)):
            start = mark.end()
        if block.kind == "table":
            spans.append(trimmed(document.text, start, end))
        else:
            spans += [(start + s, start + e) for s, e in sentence_spans(document.text[start:end], document.language)]
    return [span for span in spans if span[0] < span[1]]


def _lines(text: str, block: Block) -> Iterator[Span]:
    start = block.start
    while start < block.end:
        end = text.find("\n", start, block.end)
        end = block.end if end < 0 else end
        if text[start:end].strip():
            yield start, end
        start = end + 1


def _units(document: Document, limit: int, count: Count) -> Iterator[Unit]:
    above: Headings = ()
    for block in document.blocks:
        if block.kind == "heading":
            above = (*(h for h in above if h.level < block.level), block)
        tokens = count(document.text[block.start : block.end])
        sentences = tuple(sentences_of(document, block))
        unit = Unit(block.start, block.end, tokens, above, sentences, block.kind == "heading")
        if tokens <= limit:
            yield unit
        elif block.kind != "heading":
            yield from _cut(document, block, unit, limit, count)


def _cut(document: Document, block: Block, unit: Unit, limit: int, count: Count) -> Iterator[Unit]:
    """A block too long for one chunk, as its lines or sentences, those too long as runs of words."""
    text = document.text
    spans = list(_lines(text, block)) if block.kind in _LINES else list(unit.sentences)
    for start, end in spans:
        tokens = unit.tokens if (start, end) == (unit.start, unit.end) else count(text[start:end])
        first, beyond = bisect_left(unit.sentences, (start, 0)), bisect_left(unit.sentences, (end, 0))
        inside = unit.sentences[first:beyond]
        if tokens <= limit:
            yield replace(unit, start=start, end=end, tokens=tokens, sentences=inside)
            continue
        for s, e in _words(text, start, end, limit, count):
            sentences = ((s, e),) if inside else ()
            yield replace(unit, start=s, end=e, tokens=count(text[s:e]), sentences=sentences)


def _words(text: str, start: int, end: int, limit: int, count: Count) -> Iterator[Span]:
    """A long run of text in pieces within the limit, cut between words where there are any. Pieces are guessed at four
    characters a token and halved until they fit, so that text is counted a few times at most, whatever its length."""
    while start < end:
        stop = min(end, start + 4 * limit)
        while True:
            stop = _word_end(text, start, stop, end)
            s, e = trimmed(text, start, stop)
            if s == e or e - s == 1 or count(text[s:e]) <= limit:
                break
            stop = start + max(1, (stop - start) // 2)
        if s < e:
            yield s, e
        start = stop


def _word_end(text: str, start: int, stop: int, end: int) -> int:
    """The last end of a word before `stop`; `stop` itself where no word ends."""
    if stop >= end:
        return end
    for at in range(stop, start, -1):
        if text[at].isspace():
            return at
    return stop


def _dividing_level(document: Document) -> int:
    """The highest level that has more than one heading: a single title above all divides nothing."""
    levels = Counter(b.level for b in document.blocks if b.kind == "heading")
    return min((level for level, times in levels.items() if times > 1), default=0)


def _pack(document: Document, units: list[Unit], config: ChunkConfig, count: Count) -> Iterator[list[Unit]]:
    """Units in groups within the limit, headings kept with what follows them."""
    divide = _dividing_level(document)
    group: list[Unit] = []
    waiting: list[Unit] = []  # headings whose text is still to come
    for unit in units:
        if unit.heading:
            waiting.append(unit)
            continue
        levels = [h.above[-1].level for h in waiting]
        total = _total(group)
        divided = any(level <= divide for level in levels) or (levels and total >= FULL_ENOUGH * config.tokens)
        added = _total([*waiting, unit]) + SEPARATOR
        if group and (divided or total + added > config.tokens):
            yield group
            group = [] if divided else _overlap(document, group, unit, config, count)
            waiting = waiting if not group else []
        group += [*waiting, unit] if group else [unit]
        waiting = []
    if group:
        yield group


def _total(group: list[Unit]) -> int:
    return sum(u.tokens for u in group) + SEPARATOR * max(0, len(group) - 1)


def _overlap(document: Document, group: list[Unit], unit: Unit, config: ChunkConfig, count: Count) -> list[Unit]:
    """The last whole sentences of a chunk that fit `overlap`, to begin the next one with; none across a heading."""
    room = min(config.overlap, config.tokens - unit.tokens - SEPARATOR)
    kept: list[Unit] = []
    for before in reversed(group):
        if before.heading or before.above != unit.above or not before.sentences:
            break  # what has no sentences (code) is not repeated, and nothing beyond it
        for start, end in reversed(before.sentences):
            tokens = count(document.text[start:end]) + SEPARATOR
            room -= tokens
            if room < 0:
                return kept
            kept.insert(0, replace(before, start=start, end=end, tokens=tokens, sentences=((start, end),)))
    return kept


def _chunk(document: Document, group: list[Unit], count: Count) -> Chunk:
    texts = [u for u in group if not u.heading]
    common = _common([u.above for u in texts])
    start, end = _begin(document, texts[0], common), texts[-1].end
    sentences = tuple((s - start, e - start) for u in texts for s, e in u.sentences)
    return Chunk(
        path=document.path,
        title=document.title,
        text=document.text[start:end],
        start=start,
        end=end,
        pages=tuple(p.number for p in document.pages if p.start < end and start < p.end),
        headings=tuple(document.text[h.start : h.end] for h in common),
        sentences=sentences,
        tokens=count(document.text[start:end]),
        language=document.language,
        parents=(document.id,),
    )


def _common(paths: list[Headings]) -> Headings:
    """What all paths begin with."""
    levels = zip(*paths, strict=False)
    return tuple(level[0] for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _begin(document: Document, first: Unit, common: Headings) -> int:
    """Where a chunk begins: at its first text, or at the headings right above it that only its first section has."""
    own = first.above[len(common) :]
    start = first.start
    for heading in reversed(own):
        if document.text[heading.end : start].strip():
            break
        start = heading.start
    return start
