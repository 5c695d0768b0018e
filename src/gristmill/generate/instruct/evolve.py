"""Evol-Instruct (Xu et al. 2023, arXiv 2304.12244): an instruction is made harder (in depth) or rarer (in breadth),
round by round; one that evolved into nothing ends its line.

What is eliminated: copies, talk about prompts, loops and excess length by code; what asks for the same, or is no
instruction any more, by a judge's verdict where the recipe names one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from gristmill.core.ask import Parsed
from gristmill.core.errors import Reject
from gristmill.core.prompt import Prompt
from gristmill.core.records import Draft, Origin
from gristmill.core.stage import StepContext
from gristmill.generate.columns import require
from gristmill.generate.instruct.likeness import rouge_l
from gristmill.generate.instruct.stages import EvolveConfig
from gristmill.generate.instruct.wording import check_instruction, language_for
from gristmill.generate.source import Language
from gristmill.generate.wording import word_count
from gristmill.retrieve.terms import terms

_COPY = 0.95  # ROUGE-L
_ADDED = 60  # words that a round may add
_TOKENS = 600


class Verdict(BaseModel):
    """Two plain questions: of one verdict out of three, small judges choose `same` for everything."""

    asks: Literal["yes", "no"]
    asks_more: Literal["yes", "no"]


async def run(config: EvolveConfig, record: Draft, ctx: StepContext) -> list[Draft]:
    """The instruction of each round that was reached. Dropped where the first one already fails."""
    text = record.data.get(config.column)
    if not isinstance(text, str) or not text.strip():
        raise Reject(f"no value for {config.column}")
    language = language_for(config.language, record.data)
    made: list[Draft] = []
    for number in range(1, config.rounds + 1):
        before = made[-1] if made else record
        try:
            made.append(await _evolved(config, before, number, language, ctx))
        except Reject as reject:
            if not made:
                raise
            ctx.count(**{f"lines ended by {reject.reason}": 1})
            break
    return made


async def _evolved(config: EvolveConfig, before: Draft, number: int, language: Language, ctx: StepContext) -> Draft:
    text = str(before.data[config.column])
    way = ctx.rng(before, number).choice(config.ways)
    prompt = ctx.prompt(f"instruct_{way}")
    parsed = await ctx.model(config.model).ask(
        prompt.render(instruction=text, language=language.name),
        lambda answer: _check(answer, text),
        max_tokens=_TOKENS,
        temperature=config.temperature,
    )
    calls = parsed.calls
    if config.judge is not None:
        judged = await _judged(config.judge, text, parsed.value, language, ctx)
        calls += judged.calls
        if judged.value.asks == "no":
            raise Reject("judged no instruction", parsed.value[:200])
        if judged.value.asks_more == "no":
            raise Reject("judged same", parsed.value[:200])
    data = {**before.data, config.column: parsed.value, "way": way, "round": number, "language": language.code}
    return Draft(kind="row", data=data, parents=(before.id,), origin=_origin(prompt, parsed, calls, ctx))


def _origin(prompt: Prompt, parsed: Parsed[str], calls: tuple[str, ...], ctx: StepContext) -> Origin:
    return Origin(stage=ctx.stage, prompt=prompt.ref, model=parsed.answer.model, calls=calls)


def _check(answer: str, before: str) -> str:
    text = check_instruction(answer, most=2 * word_count(before) + _ADDED, before=before)
    if rouge_l(terms(text), terms(before)) >= _COPY:
        raise ValueError("that is a copy: change what is asked for")
    return text


async def _judged(role: str, before: str, after: str, language: Language, ctx: StepContext) -> Parsed[Verdict]:
    messages = ctx.prompt("instruct_judge").render(before=before, after=after, language=language.name)
    return await ctx.model(role).structured(messages, Verdict, max_tokens=40)


def fields(config: EvolveConfig, _base: Path, before: frozenset[str] | None) -> frozenset[str] | None:
    require([config.column], before)
    return before and before | {"way", "round", "language"}
