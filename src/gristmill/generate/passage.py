"""The source's own words as training text: without them a small model learns the questions and not the document."""

from __future__ import annotations

from gristmill.core.records import Chunk, Quote, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.source import source_of
from gristmill.generate.stages import PassageConfig


async def run(config: PassageConfig, record: Chunk, ctx: StepContext) -> list[Sample]:
    source = source_of(record, ctx)
    head = f"{source.place}\n\n" if config.context and source.place else ""
    texts: list[tuple[str, Quote]] = []
    if "chunk" in config.styles:
        quote = Quote(text=record.text, start=record.start, end=record.end, path=record.path, pages=record.pages)
        texts.append((record.text, quote))
    if "sentences" in config.styles:
        texts += [(sentence.text, sentence.quote) for sentence in source.sentences]
    return [_sample(head + text, quote, record) for text, quote in texts]


def _sample(text: str, quote: Quote, record: Chunk) -> Sample:
    return Sample(
        form="text", kind="passage", text=text, quotes=(quote,), language=record.language, parents=(record.id,)
    )
