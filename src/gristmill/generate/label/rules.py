"""Rules by which texts are told apart, written once from a description: what belongs to each class, where the borders
are, and what a text belongs to that fits nowhere. They are a draft in the run's folder, to be read before they cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model

from gristmill.core.ask import Parsed
from gristmill.core.records import Draft, Origin, Record
from gristmill.core.stage import PassContext, PassResult, StepContext
from gristmill.generate.label.stages import RulesConfig
from gristmill.generate.label.texts import RULES
from gristmill.generate.source import Language, language_of

_LINE_TOKENS, _RULE_TOKENS = 80, 90

Rule = Annotated[str, Field(min_length=8, max_length=300)]


def brief(config: RulesConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:  # noqa: ARG001
    """What the recipe says, as a record."""
    yield Draft(kind="brief", data={"description": config.description, "classes": dict(config.classes)})


async def run(config: RulesConfig, record: Draft, ctx: StepContext) -> list[Draft]:
    language = language_of(config.language, "en")
    written, origin = await (_lines if config.ask == "line" else _structured)(config, ctx, language)
    if same := len(written["rules"]) - len({" ".join(rule.casefold().split()) for rule in written["rules"].values()}):
        ctx.count(**{"classes with the rule of another": same})
    return [Draft(kind=RULES, data={**record.data, **written}, parents=(record.id,), origin=origin)]


def classes_of(classes: dict[str, str]) -> str:
    """The classes as a prompt shows them."""
    return "\n".join(f"- {name}: {meaning}" if meaning else f"- {name}" for name, meaning in classes.items())


def schema(names: tuple[str, ...]) -> type[BaseModel]:
    """A rule for each class, by number; borders; and the class of what fits nowhere."""
    rules = create_model("Rules", **{f"class{n}": (Rule, ...) for n in range(len(names))})  # type: ignore[call-overload]
    borders = Annotated[list[Rule], Field(max_length=6)]
    one: Any = Literal[names]
    return create_model("Sorting", rules=(rules, ...), borders=(borders, ...), otherwise=(one, ...))


async def _structured(config: RulesConfig, ctx: StepContext, language: Language) -> tuple[dict[str, Any], Origin]:
    names, prompt = tuple(config.classes), ctx.prompt("label_rules")
    numbered = "\n".join(f"class{n}: {_one(config, name)}" for n, name in enumerate(names))
    parsed = await ctx.model(config.model).structured(
        prompt.render(description=config.description, classes=numbered, language=language.name),
        schema(names),
        max_tokens=200 + _RULE_TOKENS * (len(names) + 6),
        temperature=config.temperature,
    )
    said = parsed.value.model_dump()
    rules = {name: said["rules"][f"class{n}"] for n, name in enumerate(names)}
    written = {"rules": rules, "borders": said["borders"], "otherwise": said["otherwise"]}
    return written, Origin(stage=ctx.stage, prompt=prompt.ref, model=parsed.answer.model, calls=parsed.calls)


async def _lines(config: RulesConfig, ctx: StepContext, language: Language) -> tuple[dict[str, Any], Origin]:
    """One line for each class, for models that cannot keep several apart."""
    prompt, model = ctx.prompt("label_rule"), ctx.model(config.model)
    rules: dict[str, str] = {}
    answers: list[Parsed[str]] = []
    for name in config.classes:
        messages = prompt.render(
            description=config.description,
            classes=classes_of(config.classes),
            name=_one(config, name),
            language=language.name,
        )
        how: dict[str, Any] = {"temperature": config.temperature, "stop": ("\n",)}
        answers.append(await model.ask(messages, _line, max_tokens=_LINE_TOKENS, **how))
        rules[name] = answers[-1].value
    calls = tuple(call for parsed in answers for call in parsed.calls)
    origin = Origin(stage=ctx.stage, prompt=prompt.ref, model=answers[-1].answer.model, calls=calls)
    return {"rules": rules, "borders": [], "otherwise": None}, origin


def _one(config: RulesConfig, name: str) -> str:
    meaning = config.classes[name]
    return f"{name} ({meaning})" if meaning else name


def _line(text: str) -> str:
    said = " ".join(text.split())
    if not 8 <= len(said) <= 300:
        raise ValueError("write one sentence of at most 300 characters")
    return said
