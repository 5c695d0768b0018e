"""Self-Instruct (Wang et al. 2022, arXiv 2212.10560): a few instructions, drawn by seed, are shown; the model writes
another; what is too like any that was shown, or made before it, or holds one that was shown, is dropped.

The pool does not grow while a stage runs, so that a run gives the same whoever is quicker. To grow it, give the
instructions of one stage to the next one, beside the first seeds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import JsonValue

from gristmill.core.errors import InputError
from gristmill.core.records import Draft, Origin, Record, digest_of
from gristmill.core.stage import Dropped, PassContext, PassResult, StepContext
from gristmill.generate.columns import require
from gristmill.generate.instruct.likeness import Known
from gristmill.generate.instruct.stages import SelfInstructConfig
from gristmill.generate.instruct.wording import check_instruction, language_for

_LONGEST = 150  # words of an instruction
_TOKENS = 400


def draw(config: SelfInstructConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """So many draws of seeds: which are in a draw depends on the recipe's seed, its number and the seeds alone."""
    drafts = [record for record in records if isinstance(record, Draft)]
    seeds = [draft for draft in drafts if _instruction(config, draft)]
    yield from (Dropped(draft, f"no value for {config.column}") for draft in drafts if not _instruction(config, draft))
    if len(seeds) < config.shown:
        raise InputError(
            f"there are {len(seeds)} instructions, and {config.shown} are to be shown at a time",
            "Give more rows, or lower `shown`.",
        )
    for number in range(config.rows):
        drawn = heapq.nsmallest(config.shown, seeds, key=lambda seed: digest_of([ctx.seed, number, seed.id]))
        shown = [_instruction(config, seed) for seed in drawn]
        data: dict[str, JsonValue] = {
            "number": number,
            "shown": "\n".join(f"{n}. {text}" for n, text in enumerate(shown, 1)),
        }
        spoken = {seed.data.get("language") for seed in drawn}
        if len(spoken) == 1:
            data["language"] = spoken.pop()
        yield Draft(kind="drawn", data=data, parents=tuple(seed.id for seed in drawn))


def _instruction(config: SelfInstructConfig, draft: Draft) -> str:
    value = draft.data.get(config.column)
    return " ".join(value.split()) if isinstance(value, str) else ""


async def write(config: SelfInstructConfig, record: Draft, ctx: StepContext) -> list[Draft]:
    prompt, language = ctx.prompt("instruct_new"), language_for(config.language, record.data)
    parsed = await ctx.model(config.model).ask(
        prompt.render(shown=record.data["shown"], language=language.name),
        lambda text: check_instruction(text, most=_LONGEST),
        max_tokens=_TOKENS,
        temperature=config.temperature,
        sample=int(str(record.data["number"])),
    )
    origin = Origin(stage=ctx.stage, prompt=prompt.ref, model=parsed.answer.model, calls=parsed.calls)
    data = {config.column: parsed.value, "language": language.code}
    return [Draft(kind="row", data=data, parents=(record.id,), origin=origin)]


def run(config: SelfInstructConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """Those that are unlike every seed that was shown, hold none of these, and are unlike every one before them."""
    drafts = [record for record in records if isinstance(record, Draft)]
    known = Known()
    for text in sorted(set(_shown(config, drafts, ctx))):
        known.add(text, seed=True)
    for draft in drafts:
        text = _instruction(config, draft)
        if likeness := known.likest(text, least=config.likeness):
            yield Dropped(draft, "not new", f"likeness {likeness:.2f}: {text[:200]}")
        else:
            known.add(text)
            yield draft


def _shown(config: SelfInstructConfig, drafts: list[Draft], ctx: PassContext) -> Iterator[str]:
    for draft in drafts:
        yield from filter(None, (_instruction(config, seed) for seed in ctx.ancestors(draft, Draft)))


def fields(config: SelfInstructConfig, _base: Path, before: frozenset[str] | None) -> frozenset[str] | None:
    require([config.column], before)
    return None


def given(config: SelfInstructConfig, _base: Path, _before: frozenset[str] | None) -> frozenset[str] | None:
    return frozenset({config.column, "language"})
