"""The parts of an answer as a recipe names them, and the pydantic model that binds and reads it.

`score: integer`, `label: [good, bad]` and `{type: array, items: string, maxItems: 5}` are the same language: JSON
Schema's own words, with the two shortest forms written short. Text and lists always have an upper bound: an answer
without one is cut off, not ended. A text that its own bound cut off is no answer.
"""

from __future__ import annotations

import re
from datetime import date
from functools import cache, partial
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from gristmill.generate.wording import word_count


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
    minWords: int = Field(0, ge=0, description="Fewest words of a text")
    maxWords: int | None = Field(None, ge=1, description="Most words of a text")
    format: Literal["date", "email"] | None = Field(None, description="Of a text: 2024-12-31, name@example.org")
    items: AnswerField | None = Field(None, description="What an array holds; text if not given")
    minItems: int = Field(0, ge=0, description="Fewest entries of an array")
    maxItems: int = Field(20, ge=1, description="Most entries of an array")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        said = self.model_fields_set
        for names, types in {
            ("enum", "maxLength", "minWords", "maxWords", "format"): ("string",),
            ("minimum", "maximum"): ("integer", "number"),
            ("items", "minItems", "maxItems"): ("array",),
        }.items():
            if self.type not in types and (wrong := said.intersection(names)):
                raise ValueError(f"{' and '.join(sorted(wrong))} belongs to {' or '.join(types)}, not to {self.type}")
        if self.enum is not None and (idle := said & {"maxLength", "minWords", "maxWords", "format"}):
            raise ValueError(f"{' and '.join(sorted(idle))} does nothing beside `enum`")
        for low, high in ((self.minWords, self.maxWords), (self.minItems, self.maxItems), (self.minimum, self.maximum)):
            if low is not None and high is not None and low > high:
                raise ValueError(f"{low} is more than {high}")
        return self


AnswerField = Annotated[FieldSchema, BeforeValidator(_long_form)]


_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019\u00bb)*]*$")
_PATTERNS = {"date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", "email": r"^[^@ ]+@[^@ ]+[.][A-Za-z]{2,}$"}


def _checked(field: FieldSchema, text: str) -> str:
    """What a schema cannot say: how many words, whether they end where a grammar made them end, and whether there is
    such a day. ValueError tells the model."""
    counted(text, field.minWords, field.maxWords)
    if len(text) >= field.maxLength and not _END.search(text):
        raise ValueError(f"the text breaks off after {field.maxLength} characters: write fewer")
    if field.format == "date":
        date.fromisoformat(text)
    return text


def counted(text: str, least: int | None, most: int | None) -> str:
    """The text, if it has so many words."""
    words = word_count(text)
    if words < (least or 0) or words > (most or words):
        wanted = " and ".join([f"{least} words or more"] * bool(least) + [f"{most} words or fewer"] * bool(most))
        raise ValueError(f"the text has {words} words: write {wanted}")
    return text


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
            bounds = Field(min_length=1, max_length=field.maxLength, pattern=field.format and _PATTERNS[field.format])
            return Annotated[str, bounds, AfterValidator(partial(_checked, field))]
        case "array":
            inner = _annotation(field.items or FieldSchema())
            return Annotated[list[inner], Field(min_length=field.minItems, max_length=field.maxItems)]  # type: ignore[valid-type]
        case "boolean":
            return bool
        case kind:
            number = int if kind == "integer" else float
            return Annotated[number, Field(ge=field.minimum, le=field.maximum)]
