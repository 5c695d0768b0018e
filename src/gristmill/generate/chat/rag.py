"""Answers from retrieved passages, and without them: a model learns to use what was found, and to notice what was not.

Where the retrieval succeeded, the passage that a question rests on stands among others like it, and the reply cites it
by its number. Where it failed, only others stand there: the reply says so, and answers from memory. The others are
those that a search for the question's words finds next, as they would be in use; none of them holds the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, create_model

from gristmill.core.errors import Reject
from gristmill.core.passages import MARK, cited, show
from gristmill.core.records import Chunk, Draft, Message, Record, Sample, digest_of
from gristmill.core.stage import Dropped, PassContext, PassResult, StepContext
from gristmill.core.thoughts import parted
from gristmill.generate.chat.asked import (
    LONGEST_REPLY,
    Asked,
    around_line,
    asked_of,
    carried,
    check_reply,
    check_silent,
    is_question,
    joined,
    rendered,
    reply_line,
)
from gristmill.generate.chat.stages import RagConfig
from gristmill.generate.wording import holds
from gristmill.generate.writer import Writer, Written
from gristmill.retrieve import Bm25

_REPLY_TOKENS = 300
_INSTRUCTIONS = {
    "en": "Answer with the help of these passages and cite the one that tells by its number. Where none does, say so.",
    "de": "Antworte mit Hilfe dieser Abschnitte und nenne die Nummer dessen, der es sagt. Sagt es keiner, so sage das.",
    "fr": "Réponds à l'aide de ces passages et cite le numéro de celui qui le dit. Si aucun ne le dit, dis-le.",
    "es": "Responde con ayuda de estos pasajes y cita el número del que lo dice. Si ninguno lo dice, dilo.",
}


def schema(answer: str, *, found: bool) -> type[BaseModel]:
    """The reply says the answer; where no passage does, that is admitted first, without it."""
    text = Field(min_length=8, max_length=LONGEST_REPLY)
    admission = Annotated[str, text, AfterValidator(lambda said: check_silent(said, answer))]
    reply = Annotated[str, text, AfterValidator(lambda said: check_reply(said, answer))]
    if found:
        return create_model("Reply", reply=(reply, ...))
    return create_model("Reply", admission=(admission, ...), reply=(reply, ...))


def retrieve(config: RagConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """One retrieval for each question. Of all questions that have one exactly the share `failed` misses."""
    asked, pool = _sorted_out(records, ctx)
    chunks = sorted(pool.values(), key=lambda chunk: chunk.id)
    index = Bm25([chunk.text for chunk in chunks])
    good = [sample for sample, own in asked if own is not None]
    missed = _missed(good, round(config.failed * len(good)), ctx.seed)
    for sample, own in asked:
        if own is None:
            yield Dropped(sample, "no single question with a quoted answer and a chunk")
            continue
        ranked = (chunks[at] for at in np.argsort(-index.scores(sample.question), kind="stable"))
        answer = parted(sample.answer, sample).answer
        others = (each for each in ranked if each.id != own.id and not holds(each.text, answer))
        nearest = list(islice(others, config.passages))
        draft = _retrieval(config, sample, own, nearest, ctx, found=sample.id not in missed)
        yield draft or Dropped(sample, "no other passage to be misled by", "every chunk holds the answer")


def _sorted_out(
    records: Iterable[Record], ctx: PassContext
) -> tuple[list[tuple[Sample, Chunk | None]], dict[str, Chunk]]:
    """Questions with the chunk they rest on, and all chunks: those given and the questions' own."""
    asked: list[tuple[Sample, Chunk | None]] = []
    pool: dict[str, Chunk] = {}
    for record in records:
        if isinstance(record, Chunk):
            pool[record.id] = record
        elif isinstance(record, Sample):
            own = ctx.ancestor(record, Chunk) if is_question(record) else None
            asked.append((record, own))
            if own is not None:
                pool[own.id] = own
    return asked, pool


def _missed(pool: list[Sample], count: int, seed: int) -> set[str]:
    """Those whose retrieval fails: by seed and id, never by place."""
    ordered = sorted((sample.id for sample in pool), key=lambda each: digest_of([seed, "missed", each]))
    return set(ordered[:count])


def _retrieval(
    config: RagConfig, sample: Sample, own: Chunk, others: list[Chunk], ctx: PassContext, *, found: bool
) -> Draft | None:
    """What was retrieved, in the order it is shown. The chunk that the answer is from is the first parent, always."""
    rng = ctx.rng(sample, "retrieval")
    count = rng.randint(1, config.passages)
    shown = [own, *others[: count - 1]] if found else others[:count]
    if not shown:
        return None
    rng.shuffle(shown)
    parents = dict.fromkeys([own.id, sample.id, *(chunk.id for chunk in shown)])
    data = {"found": found, "passages": [chunk.id for chunk in shown]}
    return Draft(kind="retrieval", data=data, parents=tuple(parents))


async def run(config: RagConfig, record: Draft, ctx: StepContext) -> list[Sample]:
    sample = ctx.ancestor(record, Sample)
    if sample is None:
        raise Reject("no question", f"draft {record.id} has no sample above it")
    writer = Writer.of(config, record, ctx)
    asked = asked_of(sample, writer.source)
    reply = await (_structured if config.ask == "structured" else _lines)(
        writer, asked, found=bool(record.data["found"])
    )
    known = {chunk.id: chunk for chunk in ctx.ancestors(record, Chunk)}
    ids = [str(each) for each in record.data["passages"]]  # type: ignore[union-attr]
    text = cited(reply.text, ids.index(writer.source.chunk.id) + 1) if record.data["found"] else reply.text
    instruction = config.instruction or _INSTRUCTIONS.get(writer.language.code, _INSTRUCTIONS["en"])
    return [
        Sample(
            form="chat",
            kind="rag",
            messages=(
                Message(role="system", content=f"{instruction}\n\n{show([known[each] for each in ids])}"),
                Message(role="user", content=asked.question),
                Message(role="assistant", content=text, train=True),
            ),
            quotes=sample.quotes,
            language=writer.language.code,
            parents=(record.id,),
            marks={**carried(sample), MARK: "found" if record.data["found"] else "missed"},
            origin=reply.origin,
        )
    ]


async def _structured(writer: Writer, asked: Asked, *, found: bool) -> Written:
    prompt = writer.ctx.prompt("chat_rag_found" if found else "chat_rag_missed")
    parsed = await writer.model.structured(
        rendered(prompt, writer, asked),
        schema(asked.answer, found=found),
        max_tokens=_REPLY_TOKENS,
        temperature=writer.config.temperature,
    )
    return Written(" ".join(parsed.value.model_dump().values()), writer.origin(prompt, parsed))


async def _lines(writer: Writer, asked: Asked, *, found: bool) -> Written:
    reply = await reply_line(writer, asked, writer.ctx.prompt("chat_reply_line"))
    if reply is None:
        raise Reject("no usable reply")
    if found:
        return reply
    admission = await around_line(writer, asked, writer.ctx.prompt("chat_missed_line"))
    if admission is None:
        raise Reject("no usable admission")
    return Written(f"{admission.text} {reply.text}", joined(reply.origin, admission.origin))
