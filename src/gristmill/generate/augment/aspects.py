"""What a text judges, as rows of one aspect each: the model names the words, code finds them in the text."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from gristmill.core.errors import Reject
from gristmill.core.records import Origin, Sample, Span
from gristmill.core.stage import StepContext
from gristmill.generate.augment.stages import AspectsConfig
from gristmill.generate.source import language_of
from gristmill.generate.wording import places

_TERM = 60  # characters of an aspect
_TOKENS = 40  # of one aspect and its label, as JSON


@cache
def schema(labels: tuple[str, ...], most: int) -> type[BaseModel]:
    parts: dict[str, Any] = {
        "term": (Annotated[str, Field(min_length=1, max_length=_TERM)], ...),
        "label": (Literal[labels], ...),
    }
    aspect: Any = create_model("Aspect", **parts)
    whole: dict[str, Any] = {"aspects": (Annotated[list[aspect], Field(max_length=most)], ...)}
    return create_model("Aspects", **whole)


async def run(config: AspectsConfig, record: Sample, ctx: StepContext) -> list[Sample]:
    if not record.text:
        raise Reject("no text", f"a {record.form} sample")
    prompt = ctx.prompt("augment_aspects")
    messages = prompt.render(
        text=record.text,
        about=config.about,
        labels=", ".join(config.labels),
        most=config.most,
        language=language_of(config.language, record.language).name,
    )
    parsed: Any = await ctx.model(config.model).structured(
        messages,
        schema(tuple(config.labels), config.most),
        max_tokens=60 + _TOKENS * config.most,
        temperature=config.temperature,
    )
    origin = Origin(stage=ctx.stage, prompt=prompt.ref, model=parsed.answer.model, calls=parsed.calls)
    labels: dict[Span, set[str]] = {}
    for aspect in parsed.value.aspects:
        found = places(record.text, aspect.term)
        if len(found) != 1:
            ctx.count(**{f"aspects {'not in the text' if not found else 'more than once in the text'}": 1})
            continue
        labels.setdefault(found[0], set()).add(aspect.label)
    if torn := sum(len(given) > 1 for given in labels.values()):
        ctx.count(**{"aspects with two labels": torn})
    rows = [_row(record, span, given.pop(), origin) for span, given in labels.items() if len(given) == 1]
    if not rows:
        raise Reject("no aspect", record.text[:200])
    return rows


def _row(record: Sample, span: Span, label: str, origin: Origin) -> Sample:
    return Sample(
        form="labelled",
        kind=record.kind,
        text=record.text,
        label=label,
        spans=(span,),
        quotes=record.quotes,
        language=record.language,
        parents=(record.id,),
        marks=record.marks,
        origin=origin,
    )
