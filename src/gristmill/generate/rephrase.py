"""The same facts in other words, orders and directions: who saw "A is B" in one form alone cannot say "B is A".

structured: the record rewritten as a whole, once in each style. line: each sentence by itself, for small models.
Code refuses what is empty, a copy, much too long, or speaks of "the text"; whether every name and number is in the
source is for `curate.ground` to say.
"""

from __future__ import annotations

import re

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Fact, Origin, Quote, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.source import distinct
from gristmill.generate.stages import RephraseConfig
from gristmill.generate.wording import check_rewriting, one_line
from gristmill.generate.writer import Writer

_FENCE = re.compile(r"^```\w*\n|\n```$")


async def run(config: RephraseConfig, record: Chunk | Fact, ctx: StepContext) -> list[Sample]:
    writer = Writer.of(config, record, ctx)
    samples = await (_whole if config.ask == "structured" else _lines)(writer, config)
    if not samples:
        raise Reject("no usable rewriting")
    return distinct(samples)


async def _whole(writer: Writer, config: RephraseConfig) -> list[Sample]:
    source = writer.source
    quote = source.whole()
    text = " ".join(sentence.text for sentence in source.sentences)
    room = max(writer.source.chunk.tokens * 3, 200)  # tokens: a list or a dialogue takes more than prose

    def check(answer: str) -> str:
        return check_rewriting(_FENCE.sub("", answer.strip()).strip(), source=text)

    samples = []
    for style in config.styles:
        prompt = writer.ctx.prompt(f"rephrase_{style}")
        for wording in range(config.wordings):
            try:
                parsed = await writer.model.ask(
                    prompt.render(place=source.place, passage=text, language=writer.language.name),
                    check,
                    max_tokens=room,
                    temperature=writer.temperature(wording),
                    sample=wording,
                )
            except Reject as reject:
                writer.ctx.count(**{f"rewritings with {reject.reason}": 1})
                continue
            samples.append(_sample(writer, parsed.value, quote, writer.origin(prompt, parsed)))
    return samples


async def _lines(writer: Writer, config: RephraseConfig) -> list[Sample]:
    prompt = writer.ctx.prompt("rephrase_line")
    samples = []
    for sentence in writer.source.sentences:

        def check(answer: str, source: str = sentence.text) -> str:
            return check_rewriting(one_line(answer), source=source)

        for wording in range(config.wordings):
            written = await writer.line(prompt, sentence, check, wording=wording)
            if written:
                samples.append(_sample(writer, written.text, sentence.quote, written.origin))
    return samples


def _sample(writer: Writer, text: str, quote: Quote, origin: Origin) -> Sample:
    return Sample(
        form="text",
        kind="rephrase",
        text=text,
        quotes=(quote,),
        language=writer.language.code,
        parents=(writer.record.id,),
        origin=origin,
    )
