"""Active Reading: a model studies a source in the ways that suit it, as a person would.

Lin and others: Learning Facts at Scale with Active Reading (arXiv 2508.09494). In two steps: which study strategies
suit this source, and one text for each of them, written with the source at hand. The strategies are the catalogue's,
the recipe's and, where a writer is good enough to make some up, the model's own.

The catalogue is written for this project. Small writers follow what is drawn by seed: choosing well is beyond them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue, create_model

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Document, Draft, Origin, Record, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.pretrain.reading import of_each, passages, shown, writer_of, written
from gristmill.generate.pretrain.stages import ActiveReadingConfig, Strategy
from gristmill.generate.source import Sentence
from gristmill.generate.writer import Writer

Studied = tuple[tuple[Sentence, ...], tuple[dict[str, str], Origin | None]]
"""A stretch, and the strategies for it: name -> task."""

_OWN_TOKENS, _NAME_TOKENS = 60, 12
_LEAST = 60  # characters; about a lone heading writers invent what it may mean

CATALOGUE: dict[Strategy, str] = {
    "retell": "Tell all of it again in your own words, as to someone who was not there.",
    "self_test": "Ask yourself a question about every fact, and answer each one in a whole sentence.",
    "outline": "Make an outline: a short heading for each matter, and under it one full sentence for each fact.",
    "timeline": "Tell it in the order of time: each date, year, day or hour, and what belongs to it.",
    "who_is_who": "Go through the persons, places and things one by one, and say all that is known of each.",
    "numbers": "Go through the numbers, dates and amounts one by one; say of each what it belongs to.",
    "causes": "Say what leads to what: for each thing its reason or its purpose, and what follows from it.",
    "compare": "Compare the persons, places or things with each other: what they share, and where they differ.",
    "explain": "Explain it to a child: short sentences, every name and number kept, every rare word made clear.",
    "memory_aids": "Make aids to memory: for each fact a short saying that ties the name to what is known of it.",
    "backwards": "Begin with the last fact: from each result, number or owner lead back to what it belongs to.",
    "situations": "Think of people who need these facts one day: say what each wants to know and the fact that helps.",
}


async def strategies(config: ActiveReadingConfig, record: Chunk | Document, ctx: StepContext) -> list[Draft]:
    """How a record will be studied, passage by passage: one draft for each text that will be written."""
    tasks: dict[str, str] = {name: CATALOGUE[name] for name in config.strategies}
    tasks |= config.more
    writer = writer_of(config, record, ctx)
    if len(shown(writer.source.sentences)) < _LEAST:
        raise Reject("too little to study", shown(writer.source.sentences))
    stretches = passages(writer.source, config.passage)
    found: list[Studied] = []
    if config.ask == "line":
        found = [(read, (_drawn(tasks, config, record, ctx, read[0].number), None)) for read in stretches]
    else:
        found += await of_each(stretches, lambda passage: _chosen(writer, config, tasks, passage), ctx)
    drafts = []
    for read, (chosen, origin) in found:
        place = {"first": read[0].number, "last": read[-1].number}  # its sentences
        for name, task in chosen.items():
            data: dict[str, JsonValue] = {"strategy": name, "task": task, **place}
            drafts.append(Draft(kind="active_reading", data=data, parents=(record.id,), origin=origin))
    return drafts


def _drawn(
    tasks: dict[str, str], config: ActiveReadingConfig, record: Record, ctx: StepContext, salt: int
) -> dict[str, str]:
    names = list(tasks)
    ctx.rng(record, salt).shuffle(names)
    return {name: tasks[name] for name in names[: config.per_record]}


def schema(names: tuple[str, ...], most: int, own: int) -> type[BaseModel]:
    """Names of the catalogue, and tasks of the model's own."""
    parts: dict[str, Any] = {}
    if names and most:
        choice = Literal[names]  # type: ignore[valid-type]
        parts["strategies"] = (Annotated[list[choice], Field(min_length=1, max_length=most)], ...)
    if own:
        task = Annotated[str, Field(min_length=12, max_length=200)]
        parts["own"] = (Annotated[list[task], Field(max_length=own)], ...)
    return create_model("Strategies", **parts)


async def _chosen(
    writer: Writer, config: ActiveReadingConfig, tasks: dict[str, str], passage: str
) -> tuple[dict[str, str], Origin | None]:
    prompt = writer.ctx.prompt("pretrain_strategies")
    parsed = await writer.model.structured(
        prompt.render(
            place=writer.source.place,
            passage=passage,
            catalogue="\n".join(f"- {name}: {task}" for name, task in tasks.items()) or "-",
            count=config.per_record,
            own=config.own,
            language=writer.language.name,
        ),
        schema(tuple(tasks), config.per_record, config.own),
        max_tokens=60 + _NAME_TOKENS * config.per_record + _OWN_TOKENS * config.own,
        temperature=config.temperature,
    )
    answer = parsed.value.model_dump()
    chosen = {name: tasks[name] for name in answer.get("strategies", [])}
    chosen |= {f"own {n}": task.strip() for n, task in enumerate(answer.get("own", []), 1)}
    if not chosen:
        raise Reject("no strategy chosen")
    return chosen, writer.origin(prompt, parsed)


async def run(config: ActiveReadingConfig, record: Draft, ctx: StepContext) -> list[Sample]:
    """One strategy followed: a text that rests on all that was read."""
    writer = writer_of(config, record, ctx)
    first, last = int(str(record.data["first"])), int(str(record.data["last"]))
    read = replace(writer.source, sentences=writer.source.sentences[first - 1 : last])
    prompt, passage, task = "pretrain_active_reading", shown(read.sentences), record.data["task"]
    return [await written(writer, config, prompt, passage, quotes=(read.whole(),), task=task)]
