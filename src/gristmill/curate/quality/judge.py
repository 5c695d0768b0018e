"""A model as judge: one check, one question, one choice out of few, several votes.

A verdict is an enum by JSON schema; no words are searched in what the judge writes. Local scores come first (`only`):
what they decide costs no call. Judges agree with people only so far, and how far differs by model and rubric (Zheng et
al. 2023, arXiv 2306.05685): `curate.calibration` measures it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from math import ceil
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Message, Sample
from gristmill.core.stage import StepContext
from gristmill.core.thoughts import parted
from gristmill.curate.quality.judge_config import Band, JudgeConfig, Rubric, Sight

_REASON = 240  # characters
_TOKENS = 60  # of the choice and the JSON around it


@dataclass(frozen=True)
class Vote:
    choice: str | None  # None: the judge gave no valid answer
    reason: str
    call: str  # store key of the answer


@dataclass(frozen=True)
class Tally:
    """The votes of one check so far, of how many there may be."""

    rubric: Rubric
    votes: tuple[Vote, ...]
    of: int
    share: float

    @property
    def passing(self) -> int:
        return sum(vote.choice in self.rubric.passes for vote in self.votes)

    @property
    def needed(self) -> int:
        return ceil(round(self.share * self.of, 9))  # 0.55 of 20 is 11, which a float misses by a hair

    @property
    def left(self) -> int:
        return self.of - len(self.votes)

    @property
    def passed(self) -> bool | None:
        """Whether the check is passed; None while votes to come can change it."""
        if self.passing >= self.needed:
            return True
        return False if self.passing + self.left < self.needed else None

    @property
    def ranked(self) -> list[tuple[str, int]]:
        """Choices by votes, the most first; of as many, the one that was voted for first."""
        return Counter(vote.choice for vote in self.votes if vote.choice is not None).most_common()

    @property
    def settled(self) -> bool:
        """No vote to come changes which choice has most."""
        counts = [count for _, count in self.ranked] + [0, 0]
        return counts[0] - counts[1] > self.left or self.left == 0


async def run(config: JudgeConfig, record: Sample | Chunk, ctx: StepContext) -> list[Sample | Chunk]:
    if config.only and not _within(config.only, record):
        ctx.count(**{f"outside the band of {config.only.mark}": 1})
        return [record]
    if ctx.rng(record, "judged").random() >= config.sampled:
        ctx.count(**{"not sampled": 1})
        return [record]
    flat: dict[str, Any] = {}
    earlier = record.marks.get("judge")
    kept: dict[str, Any] = {**earlier} if isinstance(earlier, dict) else {}
    for check in config.checks:
        tally = await _judged(config, check, record, ctx)
        if not tally.passed and config.drop:
            raise Reject(f"judged not {check}", "; ".join(_said(tally)))
        choice = tally.ranked[0][0]
        ctx.count(**{f"{check}: {choice}": 1})
        flat |= {f"judge_{check}": choice, f"judge_{check}_share": round(tally.passing / len(tally.votes), 4)}
        kept[check] = {"passed": bool(tally.passed), "votes": [vars(vote) for vote in tally.votes]}
    return [record.marked(**flat, judge=kept)]


def _within(band: Band, record: Sample | Chunk) -> bool:
    """A sample without the mark is judged: nothing has decided it."""
    value: Any = record.marks
    for part in band.mark.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return not isinstance(value, int | float) or band.low <= value <= band.high


async def _judged(config: JudgeConfig, check: str, record: Sample | Chunk, ctx: StepContext) -> Tally:
    """Votes until neither the verdict nor, where the sample stays, the choice can change."""
    rubric, prompt = config.rubric(check), ctx.prompt("judge")
    choices = "\n".join(f"- {name}: {meaning}" if meaning else f"- {name}" for name, meaning in rubric.choices.items())
    shown = "\n\n".join(_shown(rubric, record, ctx))
    messages = prompt.render(shown=shown, question=rubric.question, choices=choices)
    tally = Tally(rubric, (), config.votes, config.share)
    for number in range(config.votes):
        tally = Tally(rubric, (*tally.votes, await _vote(config, rubric, messages, number, ctx)), tally.of, tally.share)
        if tally.passed is not None and (tally.settled or (config.drop and not tally.passed)):
            break
    if not tally.ranked:
        raise Reject("no verdict", f"{check}: no vote was a valid answer")
    return tally


async def _vote(config: JudgeConfig, rubric: Rubric, messages: list[Message], number: int, ctx: StepContext) -> Vote:
    longest = max(len(choice) for choice in rubric.choices)
    try:
        parsed = await ctx.model(config.model).structured(
            messages,
            _schema(tuple(rubric.choices), config.reasons),
            max_tokens=_TOKENS + longest + (_REASON if config.reasons else 0),
            temperature=config.temperature,
            sample=number,
        )
    except Reject as reject:
        ctx.count(**{f"votes with {reject.reason}": 1})
        return Vote(None, reject.reason, "")
    return Vote(parsed.value.choice, getattr(parsed.value, "reason", ""), parsed.answer.key)


@cache
def _schema(choices: tuple[str, ...], reasons: bool) -> Any:
    """The reason comes first: what was said binds what is chosen."""
    parts: dict[str, Any] = {"choice": (Literal[choices], ...)}
    if reasons:
        parts = {"reason": (Annotated[str, Field(min_length=1, max_length=_REASON)], ...), **parts}
    return create_model("Verdict", __base__=BaseModel, **parts)


def _said(tally: Tally) -> Iterator[str]:
    for vote in tally.votes:
        yield f"{vote.choice or 'no answer'}: {vote.reason}" if vote.reason else str(vote.choice)


def _shown(rubric: Rubric, record: Sample | Chunk, ctx: StepContext) -> Iterator[str]:
    for part in rubric.sees:
        text = _part(part, record, ctx)
        if not text:
            raise Reject(f"no {part} to judge by", record.id)
        yield f"{part.capitalize()}:\n{text}"


def _part(part: Sight, record: Sample | Chunk, ctx: StepContext) -> str:
    if isinstance(record, Chunk):
        return record.text
    if part == "question":
        return _asked(record)
    if part == "answer":
        return parted(record.answer, record).answer
    if part == "source":
        chunks = [f"({chunk.title or chunk.path}) {chunk.text}" for chunk in ctx.ancestors(record, Chunk)]
        return "\n\n".join(chunks or dict.fromkeys(quote.text for quote in record.quotes))
    return record.text or _transcript((*record.messages, *record.chosen))


def _asked(record: Sample) -> str:
    """The question; where a talk came before it, the talk too: it may lean on that."""
    said = [message for message in record.messages if message.role != "system"]
    last = max((n for n, message in enumerate(said) if message.role == "user"), default=0)
    return record.question if last == 0 else _transcript(said[: last + 1])


def _transcript(messages: Iterable[Message]) -> str:
    return "\n\n".join(f"{message.role}: {message.content}" for message in messages)
