"""A text's label by the rules: one of the classes, bound by the schema of the answer. No word is searched for in it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, create_model

from gristmill.core.records import Draft, Origin, Quote, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.label.rules import classes_of
from gristmill.generate.label.stages import LabelConfig
from gristmill.generate.label.texts import LABEL, SOURCE


def schema(names: tuple[str, ...]) -> type[BaseModel]:
    one: Any = Literal[names]
    return create_model("Label", label=(one, ...))


async def run(config: LabelConfig, record: Draft, ctx: StepContext) -> list[Sample]:
    data: dict[str, Any] = dict(record.data)
    names, prompt = tuple(data["classes"]), ctx.prompt("label_text")
    parsed = await ctx.model(config.model).structured(
        prompt.render(
            description=data["description"],
            classes=classes_of({name: data["rules"][name] for name in names}),
            borders="\n".join(f"- {rule}" for rule in _borders(data)) or "-",
            text=data["text"],
        ),
        schema(names),
        max_tokens=40 + max(map(len, names)),
        temperature=config.temperature,
    )
    return [
        Sample(
            form="labelled",
            kind=LABEL,
            text=data["text"],
            label=parsed.value.model_dump()["label"],
            quotes=tuple(Quote.model_validate(quote) for quote in data["quotes"]),
            language=data["language"],
            parents=(record.id,),
            origin=Origin(stage=ctx.stage, prompt=prompt.ref, model=parsed.answer.model, calls=parsed.calls),
            marks={"split": data["split"], SOURCE: data[SOURCE]},
        )
    ]


def _borders(data: dict[str, Any]) -> list[str]:
    otherwise = [f"What fits nowhere else is {data['otherwise']}."] if data["otherwise"] is not None else []
    return [*data["borders"], *otherwise]
