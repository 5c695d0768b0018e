"""Questions and answers that lean on "the text", reworded so that they stand alone, or given up.

The verdict is one of three words by schema. What comes back may neither speak of a text nor give its answer away.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Message, Origin, Sample
from gristmill.core.stage import StepContext
from gristmill.core.thoughts import Thought, parted
from gristmill.generate.recall.stages import RepairConfig
from gristmill.generate.source import language_of, place_of
from gristmill.generate.wording import holds, speaks_of_text

_TOKENS = 500


class Verdict(BaseModel):
    """Reworded, neither part may speak of a text; the other verdicts repeat what was there."""

    verdict: Literal["pass", "rework", "fail"]
    question: Annotated[str, Field(min_length=3, max_length=400)]
    answer: Annotated[str, Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _stands_alone(self) -> Verdict:
        if self.verdict == "rework" and (speaks_of_text(self.question) or speaks_of_text(self.answer)):
            raise ValueError("the reworded question still speaks of a text: say what is meant, or choose fail")
        if self.verdict == "rework" and holds(self.question, self.answer):
            raise ValueError("the reworded question gives its answer away: ask so that the answer is missing")
        return self


async def run(config: RepairConfig, record: Sample, ctx: StepContext) -> list[Sample]:
    """Single questions only: a talk, or a sample without a question, goes on as it is, and is counted."""
    roles = [message.role for message in record.messages if message.role != "system"]
    if roles != ["user", "assistant"]:
        ctx.count(**{"not one question and one answer": 1})
        return [record]
    said = parted(record.answer, record)
    if config.leaning_only and not (speaks_of_text(record.question) or speaks_of_text(said.answer)):
        return [record]
    prompt = ctx.prompt("recall_repair")
    quote = " ".join(quote.text for quote in record.quotes)
    chunk, language = ctx.ancestor(record, Chunk), language_of(config.language, record.language)
    parsed = await ctx.model(config.model).structured(
        prompt.render(
            place=place_of(chunk) if chunk else "-",
            quote=quote or "-",
            question=record.question,
            answer=said.answer,
            language=language.name,
        ),
        Verdict,
        max_tokens=_TOKENS,
        temperature=config.temperature,
    )
    found = parsed.value
    ctx.count(**{found.verdict: 1})
    if found.verdict == "fail":
        raise Reject("cannot be repaired", record.question[:200])
    if found.verdict == "pass":
        return [record]
    calls = (*(record.origin.calls if record.origin else ()), *parsed.calls)
    origin = Origin(stage=ctx.stage, prompt=prompt.ref, model=parsed.answer.model, calls=calls)
    reply = Thought(said.thought, found.answer.strip())
    reworked = _reworked(record, found.question.strip(), reply, origin)
    return [reworked.model_copy(update={"language": language.code})]


def _reworked(record: Sample, question: str, reply: Thought, origin: Origin) -> Sample:
    """The same sample in other words: quotes, thought, form and marks stay."""
    words = {"user": question, "assistant": reply.joined()}
    messages = tuple(
        # spans of the old words say nothing of the new ones: learned whole where any of it was
        Message(role=each.role, content=words[each.role], train=bool(each.train)) if each.role in words else each
        for each in record.messages
    )
    return record.model_copy(update={"messages": messages, "parents": (record.id,), "origin": origin})
