"""What the documents do not answer, proven: the passages nearest to a question are read one by one, and none of them
answers it. A question that one does answer is dropped, and so is one without a clear verdict, or whose reply claims to
know all the same: that would teach to make things up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import BaseModel, JsonValue

from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Chunk, Draft, Record, Sample
from gristmill.core.stage import PassContext, PassResult, StepContext
from gristmill.generate.recall.group import Group, Turn, marks_of, sample_of
from gristmill.generate.recall.neighbours import Corpus
from gristmill.generate.recall.stages import RecallConfig
from gristmill.generate.source import place_of

_VERDICT_TOKENS = 60


class Verdict(BaseModel):
    passage: Literal["answers", "related", "unrelated"]


class Admission(BaseModel):
    reply: Literal["admits", "claims"]


def search(config: RecallConfig, records: Iterable[Record], _ctx: PassContext) -> PassResult:
    """Each unproven question with the passages found for it in the whole set, and the one it was made from; samples as
    they come."""
    if not any(isinstance(record, Draft | Sample) for record in records):
        raise InputError("no question came through", "Every draft was dropped while it was written: see the rejects.")
    corpus: Corpus | None = None
    for record in records:
        if isinstance(record, Sample):
            yield record
        elif isinstance(record, Draft):
            corpus = corpus or Corpus.of([each for each in records if isinstance(each, Chunk)])
            vector = record.data.get("vector")
            found = corpus.near(
                str(record.data["question"]), config.search, vector=None if vector is None else str(vector)
            )
            yield Draft(
                kind=record.kind,
                data={**record.data, "searched": len(corpus.chunks)},
                parents=(record.id, *(chunk.id for chunk in found)),
                origin=record.origin,
            )


async def run(config: RecallConfig, record: Draft | Sample, ctx: StepContext) -> list[Sample]:
    if isinstance(record, Sample):
        return [record]
    draft = next(each for each in ctx.ancestors(record, Draft) if each.kind == "recall")
    group = Group.of(draft, ctx)
    found = [chunk for chunk in ctx.ancestors(record, Chunk) if chunk.id in record.parents]
    passages = {chunk.id: chunk for chunk in [*found, group.anchor.chunk]}
    verdicts: list[JsonValue] = []
    calls: list[JsonValue] = [*await _admitted(config, record.data, ctx)]
    for chunk in passages.values():
        verdict, asked = await _read(config, str(record.data["question"]), chunk, ctx)
        if verdict == "answers":
            raise Reject("a passage answers it", f"{chunk.path}: {chunk.text[:160]}")
        verdicts.append(verdict)
        calls += asked
    proof = {"searched": record.data["searched"], "read": [*passages], "verdicts": verdicts, "calls": calls}
    return [
        sample_of(
            group,
            [_turn(record.data, group)],
            config,
            parents=(record.id,),
            marks={**marks_of(group, config), "unanswerable": proof},
            origin=record.origin,
        )
    ]


async def _admitted(config: RecallConfig, data: dict[str, Any], ctx: StepContext) -> tuple[str, ...]:
    """The calls that told that the reply does not claim to know."""
    parsed = await ctx.model(config.checker or config.model).structured(
        ctx.prompt("recall_reply").render(question=data["question"], reply=data["answer"]),
        Admission,
        max_tokens=_VERDICT_TOKENS,
    )
    if parsed.value.reply == "claims":
        raise Reject("the answer claims to know", f"{data['question']} {data['answer']}"[:300])
    return parsed.calls


async def _read(config: RecallConfig, question: str, chunk: Chunk, ctx: StepContext) -> tuple[str, tuple[str, ...]]:
    """What one passage has to say to the question, and the calls that told."""
    parsed = await ctx.model(config.checker or config.model).structured(
        ctx.prompt("recall_proof").render(place=place_of(chunk) or chunk.path, passage=chunk.text, question=question),
        Verdict,
        max_tokens=_VERDICT_TOKENS,
    )
    return parsed.value.passage, parsed.calls


def _turn(data: dict[str, Any], group: Group) -> Turn:
    rests_on = tuple(group.at(source, start) for source, start in data["rests_on"])
    return Turn(data["question"], data["answer"], rests_on, data["opening"])
