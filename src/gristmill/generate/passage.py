"""The source's own words as training text: without them a small model learns the questions and not the document."""

from __future__ import annotations

from gristmill.core.records import Chunk, Quote, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.source import distinct, source_of
from gristmill.generate.stages import PassageConfig
from gristmill.generate.wording import opens_with_pronoun


async def run(config: PassageConfig, record: Chunk, ctx: StepContext) -> list[Sample]:
    source = source_of(record, ctx)
    head = f"{source.place}\n\n" if config.context and source.place else ""
    samples = []
    if "chunk" in config.styles:
        quote = Quote(text=record.text, start=record.start, end=record.end, path=record.path, pages=record.pages)
        samples.append(_sample(head + record.text, (quote,), record))
    if "sentences" in config.styles:
        for sentence in source.sentences:
            # one that opens with a pronoun is read after the one it refers to
            first = sentence.number - 1 - (opens_with_pronoun(sentence.text) and sentence.number > 1)
            read = source.sentences[first : sentence.number]
            text = " ".join(each.text for each in read)
            samples.append(_sample(head + text, tuple(each.quote for each in read), record))
    return distinct(samples)


def _sample(text: str, quotes: tuple[Quote, ...], record: Chunk) -> Sample:
    return Sample(form="text", kind="passage", text=text, quotes=quotes, language=record.language, parents=(record.id,))
