"""Which answers of a chunk to ask for, when code chooses: spread over its sentences, the best of each first."""

from __future__ import annotations

from dataclasses import dataclass

from gristmill.generate.source import Sentence, Source
from gristmill.generate.spans import AnswerSpan, pick


@dataclass(frozen=True)
class Chosen:
    sentence: Sentence
    span: AnswerSpan


def choose(source: Source, *, most: int | None = None, per_sentence: int | None = None) -> list[Chosen]:
    """Every sentence's best answer, then every sentence's second best, until there are enough; in reading order. Of a
    round that has more than are wanted still, some from all over the text."""
    picked = [_picked(sentence, source)[:per_sentence] for sentence in source.sentences]
    chosen: list[Chosen] = []
    for turn in range(max((len(spans) for spans in picked), default=0)):
        best = [
            Chosen(at, spans[turn]) for at, spans in zip(source.sentences, picked, strict=True) if turn < len(spans)
        ]
        wanted = len(best) if most is None else min(len(best), most - len(chosen))
        chosen += [best[(2 * n + 1) * len(best) // (2 * wanted)] for n in range(wanted)]
    return sorted(chosen, key=lambda each: (each.sentence.number, each.span.start))


def _picked(sentence: Sentence, source: Source) -> list[AnswerSpan]:
    """Without what title and headings name: a question that leads to them asks for nothing in particular."""
    spans = pick(sentence.text, language=source.chunk.language, names=source.names)
    return [span for span in spans if span.text.casefold() not in source.place.casefold() or span.kind == "number"]
