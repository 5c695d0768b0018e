"""The parts of an answer as a recipe names them, and the pydantic model that binds and reads it.

`score: integer`, `label: [good, bad]` and `{type: array, items: string, maxItems: 5}` are the same language: JSON
Schema's own words, with the two shortest forms written short. Text and lists always have an upper bound: an answer
without one is cut off, not ended.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator


def _long_form(value: Any) -> Any:
    """`integer` and `[good, bad]`, spelled out."""
    if isinstance(value, str):
        return {"type": value}
    return {"enum": value} if isinstance(value, list) else value


class FieldSchema(BaseModel):
    """One part of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["string", "integer", "number", "boolean", "array"] = "string"
    description: str | None = Field(None, description="Told to the model")
    enum: tuple[str, ...] | None = Field(None, min_length=1, description="One of these")
    minimum: float | None = None
    maximum: float | None = None
    maxLength: int = Field(4000, ge=1, description="Characters of a text")
    items: AnswerField | None = Field(None, description="What an array holds; text if not given")
    maxItems: int = Field(20, ge=1, description="Entries of an array")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        said = self.model_fields_set
        for names, types in {
            ("enum", "maxLength"): ("string",),
            ("minimum", "maximum"): ("integer", "number"),
            ("items", "maxItems"): ("array",),
        }.items():
            if self.type not in types and (wrong := said.intersection(names)):
                raise ValueError(f"{' and '.join(sorted(wrong))} belongs to {' or '.join(types)}, not to {self.type}")
        return self


AnswerField = Annotated[FieldSchema, BeforeValidator(_long_form)]


@cache
def answer_model(fields: tuple[tuple[str, FieldSchema], ...]) -> type[BaseModel]:
    """The model of an answer with these parts. Inside, they are numbered: a recipe may call one as it likes."""
    parts: dict[str, Any] = {
        f"part{n}": (_annotation(field), Field(alias=name, description=field.description))
        for n, (name, field) in enumerate(fields)
    }
    return create_model("Answer", **parts)


def _annotation(field: FieldSchema) -> Any:
    if field.enum is not None:
        return Literal[field.enum]
    match field.type:
        case "string":
            return Annotated[str, Field(min_length=1, max_length=field.maxLength)]
        case "array":
            inner = _annotation(field.items or FieldSchema())
            return Annotated[list[inner], Field(max_length=field.maxItems)]  # type: ignore[valid-type]
        case "boolean":
            return bool
        case kind:
            number = int if kind == "integer" else float
            return Annotated[number, Field(ge=field.minimum, le=field.maximum)]
