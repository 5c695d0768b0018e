"""The source's own words as training text: without them a small model learns the questions and not the document.

Of facts, their statements: those that one sentence states (kind `fact`) and those that follow from several (kind
`inferred`), each written out once.
"""

from __future__ import annotations

from gristmill.core.records import Chunk, Fact, Quote, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.source import Source, distinct, source_of
from gristmill.generate.stages import PassageConfig
from gristmill.generate.wording import opens_with_pronoun


async def run(config: PassageConfig, record: Chunk | Fact, ctx: StepContext) -> list[Sample]:
    source = source_of(record, ctx)
    head = f"{source.place}\n\n" if config.context and source.place else ""
    if isinstance(record, Fact):
        kind = "inferred" if record.marks.get("inferred") else "fact"
        return [_sample(kind, head + record.statement, (record.quote,), record)]
    samples = []
    if "chunk" in config.styles:
        quote = Quote(text=record.text, start=record.start, end=record.end, path=record.path, pages=record.pages)
        samples.append(_sample("passage", head + record.text, (quote,), record))
    if "sentences" in config.styles:
        samples += _sentences(source, head, record)
    return distinct(samples)


def _sentences(source: Source, head: str, record: Chunk) -> list[Sample]:
    """One that opens with a pronoun is read after the one it refers to."""
    samples = []
    for sentence in source.sentences:
        first = sentence.number - 1 - (opens_with_pronoun(sentence.text) and sentence.number > 1)
        read = source.sentences[first : sentence.number]
        text = " ".join(each.text for each in read)
        samples.append(_sample("passage", head + text, tuple(each.quote for each in read), record))
    return samples


def _sample(kind: str, text: str, quotes: tuple[Quote, ...], record: Chunk | Fact) -> Sample:
    return Sample(form="text", kind=kind, text=text, quotes=quotes, language=record.language, parents=(record.id,))
