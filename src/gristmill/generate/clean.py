"""Text from scans and conversions, corrected by a model, piece by piece, and put together again by code.

A piece lies inside one block and on one page, so that every block and page of the document keeps its place. A
correction that adds or drops anything (`clean_check`) is refused, and the piece stays as it was; that is counted. All
stages that follow read the corrected document: it is the nearest document above their records.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import cast

from pydantic import JsonValue

from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Block, Document, Draft, Origin, Page, Record, Span
from gristmill.core.stage import PassContext, PassResult, StepContext
from gristmill.generate.clean_check import check_correction
from gristmill.generate.clean_stages import CleanConfig
from gristmill.generate.source import language_of

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])")
_LINES = ("list", "table", "code")
_SHORTEST = 4  # letters of a piece that can be corrected
_REFUSED = "refused"  # marks a piece of which no correction passed


async def pieces(config: CleanConfig, record: Document, _ctx: StepContext) -> list[Draft]:
    """What is to be corrected; of a document without any such block one empty piece, which leads back to it."""
    found = list(_pieces(record, config)) or [(0, 0)]
    return [
        Draft(
            kind="piece",
            data={"start": start, "end": end, "text": record.text[start:end], "language": record.language},
            parents=(record.id,),
        )
        for start, end in found
    ]


def _pieces(document: Document, config: CleanConfig) -> Iterator[Span]:
    breaks = sorted({edge for page in document.pages for edge in (page.start, page.end)})
    for block in document.blocks:
        if block.kind not in config.blocks:
            continue
        edges = [block.start, *(edge for edge in breaks if block.start < edge < block.end), block.end]
        for start, end in pairwise(edges):
            for a, b in _cut(document.text, start, end, config.longest, lines=block.kind in _LINES):
                if sum(c.isalpha() for c in document.text[a:b]) >= _SHORTEST:
                    yield a, b


def _cut(text: str, start: int, end: int, longest: int, *, lines: bool) -> Iterator[Span]:
    """A stretch in pieces of whole sentences (of a list: whole lines), without the spaces around them."""
    ends = re.compile(r"\n+") if lines else _SENTENCE_END
    units, at = [], start
    for hit in ends.finditer(text, start, end):
        units.append((at, hit.start()))
        at = hit.end()
    units.append((at, end))
    first, last = units[0]
    for a, b in units[1:]:
        if b - first > longest:
            yield _trimmed(text, first, last)
            first = a
        last = b
    yield _trimmed(text, first, last)


def _trimmed(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


async def correct(config: CleanConfig, record: Draft, ctx: StepContext) -> list[Draft]:
    """The piece with its correction; without one where the model finds none that passes."""
    text, language = str(record.data["text"]), str(record.data["language"])
    if not text:
        return [record]
    prompt = ctx.prompt("clean")

    def check(answer: str) -> str:
        lines = [" ".join(line.split()) for line in answer.strip().splitlines() if line.strip()]
        joined = "\n".join(lines) if "\n" in text else " ".join(lines)
        return check_correction(joined, source=text, language=language, changed=config.changed)

    try:
        parsed = await ctx.model(config.model).ask(
            prompt.render(text=text, language=language_of(None, language).name),
            check,
            max_tokens=100 + len(text.encode()),  # a token has more than one byte, even of what is badly broken
            attempts=2,
        )
    except Reject as reject:
        why = reject.detail.partition(":")[0] if reject.reason == "invalid answer" else reject.reason
        ctx.count(**{f"pieces kept as they were: {why}": 1})
        return [record.marked(**{_REFUSED: why})]
    ctx.count(**{"pieces corrected" if parsed.value != text else "pieces that were right": 1})
    origin = Origin(stage=ctx.stage, prompt=prompt.ref, model=parsed.answer.model, calls=parsed.calls)
    data = {**record.data, "corrected": parsed.value}
    return [Draft(kind="piece", data=data, parents=(record.id,), origin=origin)]


def join(_config: CleanConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """Each document from its pieces; one of which no piece could be corrected stays as it was. Where that holds for
    every document nothing was cleaned, and that is an error."""
    refused = [_REFUSED in draft.marks for draft in _drafts(records) if draft.data["text"]]
    if refused and all(refused):
        raise InputError(
            f"no piece of any document could be corrected: all {len(refused)} were refused",
            "The funnel counts them by reason. Correct with another model, or leave generate.clean out.",
        )
    for _, group in groupby(_drafts(records), key=lambda draft: _document(draft, ctx).id):
        parts = list(group)
        if all(_REFUSED in part.marks for part in parts):
            ctx.count(**{"documents kept as they were": 1})
        yield _joined(_document(parts[0], ctx), parts, ctx)


def _drafts(records: Iterable[Record]) -> Iterator[Draft]:
    return (record for record in records if isinstance(record, Draft))


def _document(draft: Draft, ctx: PassContext) -> Document:
    document = ctx.ancestor(draft, Document)
    if document is None:
        raise InputError(f"the piece {draft.id} has no document above it", "Give generate.clean documents.")
    return document


def _joined(document: Document, parts: list[Draft], ctx: PassContext) -> Document:
    replaced = Replaced.of((cast(int, p.data["start"]), cast(int, p.data["end"]), _text(p)) for p in parts)
    changes = {
        "text": replaced.text(document.text),
        "pages": tuple(page.model_copy(update=replaced.span(page)) for page in document.pages),
        "blocks": tuple(block.model_copy(update=replaced.span(block)) for block in document.blocks),
    }
    same = {name: getattr(document, name) for name in ("path", "title", "language", "media_type")}
    corrected: dict[str, JsonValue] = {"pieces": len(parts), "kept": sum(_REFUSED in part.marks for part in parts)}
    return Document(
        **same,
        **changes,
        marks={**document.marks, "corrected": corrected},
        parents=(document.id,),
        origin=_origin([part.origin for part in parts if part.origin], ctx),
    )


def _text(part: Draft) -> str:
    return str(part.data.get("corrected", part.data["text"]))


def _origin(made: list[Origin], ctx: PassContext) -> Origin | None:
    """Of the document: every answer that it was made from."""
    calls = tuple(call for origin in made for call in origin.calls)
    return made[0].model_copy(update={"stage": ctx.stage, "calls": calls}) if made else None


@dataclass(frozen=True)
class Replaced:
    """A text with pieces replaced, and where things stand in it now. A place inside a piece has none."""

    pieces: list[tuple[int, int, str]]  # start, end, what stands there now; in order
    ends: list[int]
    shifts: list[int]  # how far everything after the first n pieces has moved

    @classmethod
    def of(cls, pieces: Iterable[tuple[int, int, str]]) -> Replaced:
        ordered = sorted(pieces)
        grown = (len(text) - (end - start) for start, end, text in ordered)
        return cls(ordered, [end for _, end, _ in ordered], list(accumulate(grown, initial=0)))

    def span(self, what: Page | Block) -> dict[str, int]:
        return {"start": self._at(what.start), "end": self._at(what.end)}

    def _at(self, place: int) -> int:
        return place + self.shifts[bisect_right(self.ends, place)]

    def text(self, before: str) -> str:
        parts, at = [], 0
        for start, end, text in self.pieces:
            parts += [before[at:start], text]
            at = end
        return "".join([*parts, before[at:]])
