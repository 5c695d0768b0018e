"""Questions with short answers. The quote under an answer is always copied by code.

structured: the model writes questions and answers for numbered sentences and says which sentence holds each answer.
line: code picks the answer in a sentence, the model writes nothing but the question, as one line. A 1.5B model keeps
up with the second; it costs a sixth of the tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, Field, create_model

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Fact, Origin, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.answers import Chosen, choose
from gristmill.generate.source import Sentence, chat, distinct
from gristmill.generate.stages import QaConfig
from gristmill.generate.wording import check_question, one_line
from gristmill.generate.writer import Writer

_QUESTION_TOKENS = 140  # one question with its answer and JSON, at most
_KINDS = {"date": "a date", "year": "a year", "time": "a time", "quantity": "a quantity"}


class AskedQuestion(BaseModel):
    sentence: int
    question: Annotated[str, Field(min_length=10, max_length=300)]
    answer: Annotated[str, Field(min_length=1, max_length=160)]


class Questions(BaseModel):
    """The answer's shape; `schema` bounds it by what was asked."""

    questions: list[AskedQuestion]


def schema(sentences: int, most: int) -> type[Questions]:
    """At most `most` questions, each naming one of the sentences."""
    number = Annotated[int, Field(ge=1, le=sentences)]
    item = create_model("AskedQuestion", __base__=AskedQuestion, sentence=(number, ...))
    items = Annotated[list[item], Field(min_length=1, max_length=most)]
    return create_model("Questions", __base__=Questions, questions=(items, ...))


async def run(config: QaConfig, record: Chunk | Fact, ctx: StepContext) -> list[Sample]:
    writer = Writer.of(config, record, ctx)
    samples = await (_structured if config.ask == "structured" else _lines)(writer, config)
    if not samples:
        raise Reject("no usable question")
    return distinct(samples)


@dataclass(frozen=True)
class Share:
    """How many of a record's questions are asked in one way."""

    way: str
    count: int


def shares(config: QaConfig) -> list[Share]:
    """`per_chunk` dealt to the ways in turn; a way that gets none is not asked."""
    ways = len(config.ways)
    counts = [config.per_chunk // ways + (n < config.per_chunk % ways) for n in range(ways)]
    return [Share(way, count) for way, count in zip(config.ways, counts, strict=True) if count]


async def _structured(writer: Writer, config: QaConfig) -> list[Sample]:
    samples = []
    for share in shares(config):
        prompt, source = writer.ctx.prompt(f"qa_{share.way}"), writer.source
        before = source.sentences[0].before or "-"
        parsed = await writer.model.structured(
            prompt.render(
                place=source.place,
                before=before,
                sentences=source.numbered(),
                count=share.count,
                language=writer.language.name,
            ),
            schema(len(source.sentences), share.count),
            max_tokens=60 + _QUESTION_TOKENS * share.count,
            temperature=config.temperature,
        )
        for asked in parsed.value.questions:
            sentence, answer = source.sentence(asked.sentence), asked.answer.strip()
            try:
                question = check_question(asked.question.strip(), answer=answer, sentence=sentence, source=source)
            except ValueError:
                writer.ctx.count(**{"questions that do not stand alone": 1})
                continue
            samples.append(_sample(writer, question, answer, sentence, writer.origin(prompt, parsed)))
    return samples


async def _lines(writer: Writer, config: QaConfig) -> list[Sample]:
    """Each chosen answer is asked for in every way, `wordings` times. Way by way: an engine on this machine keeps what
    it computed of the last prompt, and those of one way begin alike."""
    chosen = choose(writer.source, most=config.per_chunk)
    asked = [(way, one, wording) for way in config.ways for one in chosen for wording in range(config.wordings)]
    written = [await _line(writer, way, one, wording) for way, one, wording in asked]
    return [sample for sample in written if sample]


async def _line(writer: Writer, way: str, chosen: Chosen, wording: int) -> Sample | None:
    answer, sentence = chosen.span.text, chosen.sentence

    def check(text: str) -> str:
        asks = way != "request"
        return check_question(one_line(text), answer=answer, sentence=sentence, source=writer.source, mark=asks)

    prompt, kind = writer.ctx.prompt(f"line_{way}"), _described(chosen)
    written = await writer.line(prompt, sentence, check, wording=wording, answer=answer, answer_kind=kind)
    return _sample(writer, written.text, answer, sentence, written.origin) if written else None


def _described(chosen: Chosen) -> str:
    """What the model is told of the answer; for a bare number also what it counts."""
    if chosen.span.kind == "number":
        counted = re.match(r"(?: [^\W\d_-]+){0,2}", chosen.sentence.text[chosen.span.end :])
        return f"a number, of{counted[0]}" if counted and counted[0] else "a number"
    return _KINDS.get(chosen.span.kind, "a name or a few words")


def _sample(writer: Writer, question: str, answer: str, sentence: Sentence, origin: Origin) -> Sample:
    return Sample(
        form="chat",
        kind="qa",
        messages=chat(question, answer),
        quotes=(sentence.quote,),
        language=writer.language.code,
        parents=(writer.record.id,),
        origin=origin,
    )
