"""Questions whose answers several passages give together, and their answers.

structured: one call writes question and answer and names the sentences that the answer rests on.
line: code has chosen these sentences; one call writes the question, another the answer, each a plain line.
Either way the quotes, the recalled passages and the cited documents are copied by code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, Field, create_model, model_validator

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Draft, Record
from gristmill.core.stage import StepContext
from gristmill.core.thoughts import check_thought
from gristmill.generate.recall.checks import check_answer, check_first, check_next
from gristmill.generate.recall.claims import Claim, falsified
from gristmill.generate.recall.group import Group, Turn, marks_of, sample_of
from gristmill.generate.recall.hints import hints, names_tell
from gristmill.generate.recall.lines import Written, spoken
from gristmill.generate.recall.stages import RecallConfig
from gristmill.generate.recall.talk import offered
from gristmill.generate.writer import Writer
from gristmill.retrieve import embed_with, packed

UNPROVEN = "recall_unproven"
"""Kind of the draft of a question that nothing may answer, before that is proven."""


async def run(config: RecallConfig, record: Chunk | Draft, ctx: StepContext) -> list[Record]:
    """The chunks go on to the search that proves what they do not answer."""
    if isinstance(record, Chunk):
        return [record]
    group, writer = Group.of(record, ctx), Writer.of(config, record, ctx)
    claim = _claim(group, ctx)
    if config.ask == "structured":
        written = await _structured(writer, config, group, claim)
    else:
        written = await spoken(writer, config, group, claim)
    if group.way == "unanswerable":
        return [await _unproven(config, group, written, ctx)]
    return [
        sample_of(
            group,
            written.turns,
            config,
            parents=(record.id,),
            marks=marks_of(group, config),
            origin=written.origin,
        )
    ]


def _claim(group: Group, ctx: StepContext) -> Claim | None:
    if group.way != "false_premise":
        return None
    known = " ".join(sentence.text for sentence in group.sentences)
    try:
        return falsified(group.begin.text, known=known, rng=ctx.rng(group.draft, "claim"))
    except ValueError as error:
        raise Reject("nothing to make wrong", str(error)) from error


async def _unproven(config: RecallConfig, group: Group, written: Written, ctx: StepContext) -> Draft:
    """The question as a draft for the search, with its embedding where a role makes it."""
    (turn,) = written.turns
    data: dict[str, Any] = {
        "question": turn.question,
        "answer": turn.answer,
        "opening": turn.opening,
        "rests_on": [list(group.place_of(each)) for each in turn.rests_on],
    }
    if config.embedding is not None:
        (vector,) = await embed_with(ctx.model(config.embedding), [turn.question])
        data["vector"] = packed(vector)
    return Draft(kind=UNPROVEN, data=data, parents=(group.draft.id,), origin=written.origin)


async def _structured(writer: Writer, config: RecallConfig, group: Group, claim: Claim | None) -> Written:
    prompt = writer.ctx.prompt(f"recall_{group.way}")
    pair = [group.begin, *([group.also] if group.also else [])]
    values = {
        "passages": group.shown(),
        "begin": group.placed(pair) if group.way == "comparison" else group.begin.text,
        **hints(group, claim, writer.ctx),
        "turns": config.turns,
        "language": writer.language.name,
    }

    named = names_tell(writer)

    def checked(value: Any) -> tuple[Turn, ...]:
        return _turns(value, group, claim, named)

    parsed = await writer.model.structured(
        prompt.render(**values),
        _schema(config, group, checked),
        max_tokens=config.max_tokens,
        temperature=config.temperature,
    )
    turns = checked(parsed.value)
    if group.way == "followup":
        turns = offered(turns, [item.offer for item in _items(parsed.value)], writer)
    return Written(turns, writer.origin(prompt, parsed))


def _schema(config: RecallConfig, group: Group, checked: Callable[[Any], object]) -> type[BaseModel]:
    """The answer's shape, and behind it the checks that only code can make."""
    number = Annotated[int, Field(ge=1, le=len(group.sentences))]
    line = Annotated[str, Field(min_length=3, max_length=300)]
    parts: dict[str, Any] = {"opening": (line, ...)} if config.thoughts else {}
    parts |= {
        "question": (line, ...),
        "sentences": (Annotated[list[number], Field(min_length=1, max_length=6)], ...),
        "answer": (Annotated[str, Field(min_length=2, max_length=1000)], ...),
    }

    def valid(value: Any) -> Any:
        checked(value)
        return value

    validators: dict[str, Any] = {"checked": model_validator(mode="after")(valid)}
    if group.way != "followup":
        return create_model("Asked", __validators__=validators, **parts)
    item = create_model("Turn", **parts, offer=(line, ...))
    turns = Annotated[list[item], Field(min_length=config.turns, max_length=config.turns)]
    return create_model("Talk", __validators__=validators, turns=(turns, ...))


def _items(value: Any) -> list[Any]:
    """The turns of a talk; a single question is one."""
    return list(getattr(value, "turns", [value]))


def _turns(value: Any, group: Group, claim: Claim | None, named: bool) -> tuple[Turn, ...]:
    """What a model said, checked; ValueError otherwise."""
    turns: list[Turn] = []
    for item in _items(value):
        rests_on = tuple(group.sentences[number - 1] for number in dict.fromkeys(item.sentences))
        asked = item.question.strip()
        question = check_next(asked) if turns else check_first(asked, group=group, claim=claim)
        if group.way == "comparison" and len({group.place_of(each)[0] for each in rests_on}) < 2:
            raise ValueError("a comparison rests on sentences of two passages: name both in `sentences`")
        answer = check_answer(
            item.answer.strip(),
            group=group,
            claim=claim,
            question=question,
            facts=group.sentences,
            names_tell=named,
        )
        if group.way == "followup":
            check_next(item.offer.strip())
        opening = getattr(item, "opening", "").strip()
        turns.append(Turn(question, answer, rests_on, opening and check_thought(opening)))
    return tuple(turns)
