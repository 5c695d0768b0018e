"""The same facts in other words, orders, directions and forms: who saw "A is B" in one form alone cannot say "B is A"
(Berglund and others: The reversal curse, arXiv 2309.12288).

structured: the record rewritten as a whole, once in each style. line: each sentence by itself, for small models.
Code refuses what is empty, a copy, a loop, much too long, not of its form, or speaks of "the text"; whether every name
and number is in the source is for `curate.ground` to say.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from xml.parsers import expat

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Fact, Origin, Quote, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.source import distinct
from gristmill.generate.stages import RephraseConfig, Style
from gristmill.generate.wording import check_ends, check_rewriting, one_line, unfenced
from gristmill.generate.writer import Writer

_ROOM = 3  # tokens of a rewriting for one of its source: a list or a dialogue takes more than prose
_LONGEST: dict[Style, float] = {"question_answer": 3, "essay": 3, "thoughts": 3, "logic": 3}
"""Times the words of the source that a style may take, where that is more than twice."""


async def run(config: RephraseConfig, record: Chunk | Fact, ctx: StepContext) -> list[Sample]:
    writer = Writer.of(config, record, ctx)
    if config.about:
        place = f"{config.about} > {writer.source.place}"
        told = replace(writer, source=replace(writer.source, place=place))
    else:
        told = writer
    samples = await (_whole if config.ask == "structured" else _lines)(told, config)
    if not samples:
        raise Reject("no usable rewriting")
    if config.context and writer.source.place:
        samples = [each.model_copy(update={"text": f"{writer.source.place}\n\n{each.text}"}) for each in samples]
    return distinct(samples)


def _styles(writer: Writer, config: RephraseConfig) -> list[Style]:
    """All styles, or some drawn by the record's own seed, in the recipe's order."""
    if config.draw is None:
        return config.styles
    drawn = writer.ctx.rng(writer.record, "styles").sample(config.styles, config.draw)
    return [style for style in config.styles if style in drawn]


async def _whole(writer: Writer, config: RephraseConfig) -> list[Sample]:
    source = writer.source
    quote = source.whole()
    text = " ".join(sentence.text for sentence in source.sentences)
    samples = []
    for style in _styles(writer, config):
        prompt = writer.ctx.prompt(f"rephrase_{style}")
        for wording in range(config.wordings):
            try:
                parsed = await writer.model.ask(
                    prompt.render(place=source.place, passage=text, language=writer.language.name),
                    _check(style, text),
                    max_tokens=max(source.chunk.tokens * _ROOM, 200),
                    temperature=writer.temperature(wording),
                    sample=wording,
                )
            except Reject as reject:
                writer.ctx.count(**{f"rewritings with {reject.reason}": 1})
                continue
            samples.append(_sample(writer, parsed.value, quote, writer.origin(prompt, parsed)))
    return samples


def _check(style: Style, source: str) -> Callable[[str], str]:
    def check(answer: str) -> str:
        text = check_rewriting(unfenced(answer), source=source, longest=_LONGEST.get(style, 2))
        match style:
            case "json":
                _check_json(text)
            case "xml":
                _check_xml(text)
            case _:
                check_ends(text)
        return text

    return check


def _check_json(text: str) -> None:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"that is no JSON: {error}") from error
    if not isinstance(read, dict):
        raise ValueError("write one JSON object")


def _check_xml(text: str) -> None:
    """Well formed, and plain elements: no declaration that a reader would have to resolve."""
    if "<!" in text:
        raise ValueError("write plain elements alone")
    try:
        expat.ParserCreate().Parse(text, True)
    except expat.ExpatError as error:
        raise ValueError(f"that is no well-formed XML: {error}") from error


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
