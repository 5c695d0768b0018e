"""A JSON schema as it is put to a server: with its bounds, without them, and in words. Made once for each schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from gristmill.llm.provider import Schema

TOLD = "Answer with one JSON object and nothing else, by this JSON Schema:\n"

_BOUNDS = (
    "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "minItems", "maxItems", "uniqueItems",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Demand:
    """`size` is the most bytes it adds to a request."""

    schema: Schema
    bare: Schema
    text: str
    size: int

    @property
    def words(self) -> str:
        return TOLD + self.text


class Demands:
    """The demands of one line, by identity of the schema: schemas live as long as the stage that has them."""

    def __init__(self) -> None:
        self._made: dict[int, Demand] = {}

    def of(self, schema: Schema) -> Demand:
        made = self._made.get(id(schema))
        if made is None or made.schema is not schema:  # what is kept here keeps its identity
            text, bare = orjson.dumps(schema), without_bounds(schema)
            size = len(TOLD) + max(len(text), len(orjson.dumps(bare)))
            made = self._made[id(schema)] = Demand(schema, bare, text.decode(), size)
        return made


def in_words(messages: tuple[dict[str, str], ...], demand: Demand) -> tuple[dict[str, str], ...]:
    """The messages, the demand at their end."""
    *before, last = messages
    return (*before, {**last, "content": f"{last['content']}\n\n{demand.words}"})


def fits(text: str, schema: Schema, *, by_keys: bool) -> bool:
    """Whether an answer is a JSON object, fenced or not; with `by_keys`, one with the properties that were demanded."""
    cut = text.strip()
    if cut.startswith("```"):
        cut = cut.strip("`").removeprefix("json").strip()
    try:
        value = orjson.loads(cut)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) and (not by_keys or value.keys() >= set(schema.get("required", ())))


def without_bounds(node: Any) -> Any:
    """A schema for decoders that know no bounds: they stand in the descriptions instead, where the model reads them."""
    if isinstance(node, list):
        return [without_bounds(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            plain[key] = {name: without_bounds(child) for name, child in value.items()}
        elif key in ("enum", "const", "required"):
            plain[key] = value
        elif key not in _BOUNDS:
            plain[key] = without_bounds(value)
    if bounds := [f"{name}: {node[name]}" for name in _BOUNDS if name in node]:
        said = plain.get("description")
        plain["description"] = (f"{said} " if said else "") + "{" + ", ".join(bounds) + "}"
    return plain
