"""A pydantic model as the JSON schema that a decoder is bound to, and an answer's text back to the model."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from gristmill.core.errors import ConfigError

M = TypeVar("M", bound=BaseModel)

_FENCED = re.compile(r"```[A-Za-z0-9_-]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)
_SHOWN_PROBLEMS = 5


@cache
def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The model's schema with its definitions in place, every object closed and every property demanded.

    An optional property gives a small model a choice it makes badly, and an open object lets it go on inventing
    properties until it is cut off. Strings and arrays without an upper bound are refused for the same reason.
    """
    raw = model.model_json_schema()
    definitions = raw.pop("$defs", {})
    tight: dict[str, Any] = _tightened(raw, definitions, model.__name__, ())
    return tight


def _tightened(node: Any, definitions: dict[str, Any], at: str, above: tuple[str, ...]) -> Any:
    if isinstance(node, list):
        return [_tightened(item, definitions, at, above) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = str(node["$ref"]).rpartition("/")[2]
        if name in above:
            raise ConfigError(f"the schema {at} holds itself ({name}): an answer could go on for ever", "Flatten it.")
        rest = {k: v for k, v in node.items() if k != "$ref"}
        return _tightened({**definitions[name], **rest}, definitions, at, (*above, name))
    _check_bounds(node, at)
    tight: dict[str, Any] = {}
    for key, value in node.items():
        if key == "properties":
            tight[key] = {n: _tightened(v, definitions, f"{at}.{n}", above) for n, v in value.items()}
        elif key not in ("title", "default"):
            tight[key] = value if key in ("enum", "const", "required") else _tightened(value, definitions, at, above)
    if node.get("type") == "object":
        tight |= {"additionalProperties": False, "required": list(node.get("properties", {}))}
    return tight


def _check_bounds(node: dict[str, Any], at: str) -> None:
    kind = node.get("type")
    closed = "enum" in node or "const" in node or "pattern" in node or "format" in node
    if (kind == "string" and "maxLength" not in node and not closed) or (kind == "array" and "maxItems" not in node):
        raise ConfigError(
            f"the schema {at} has no upper bound",
            "Give its field a max_length: an unbounded answer is cut off, not ended.",
        )


def parse_json(model: type[M], text: str) -> M:
    """The value in an answer, out of its code fence if it stands in one. ValueError says in few words what is wrong."""
    fenced = _FENCED.search(text)
    try:
        return model.model_validate_json(fenced[1] if fenced else text.strip())
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False, include_context=False)[:_SHOWN_PROBLEMS]
        shown = "; ".join(f"{'.'.join(map(str, p['loc'])) or 'the answer'}: {p['msg']}" for p in problems)
        raise ValueError(shown) from error
