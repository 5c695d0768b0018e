"""JSON Schema of recipes: for editors (completion, red lines) and for forms."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from gristmill.llm.spec import ModelSpec
from gristmill.runs.kinds import kinds
from gristmill.runs.recipe import Recipe
from gristmill.runs.sinks import SinkConfig, sinks


def recipe_schema() -> dict[str, Any]:
    """One schema: every kind of stage is a branch chosen by its `kind`; every value may be null under `extends`."""
    schema = Recipe.model_json_schema()
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    branches = []
    for kind, chain in sorted(kinds().items()):
        branch = chain[-1].config.model_json_schema(ref_template="#/$defs/{model}")
        definitions |= branch.pop("$defs", {})
        branch["properties"]["kind"] = {"const": kind, "description": (chain[-1].config.__doc__ or "").strip()}
        branch["title"] = kind
        branches.append(branch)
    model = TypeAdapter(ModelSpec).json_schema(ref_template="#/$defs/{model}")
    definitions |= model.pop("$defs", {})
    schema["properties"]["stages"]["additionalProperties"] = {"anyOf": [{"oneOf": branches}, {"type": "null"}]}
    schema["properties"]["models"]["additionalProperties"] = {"anyOf": [model, {"type": "null"}]}
    followed = {name: _sink(kind.config, definitions) for name, kind in sinks().items()}
    schema["properties"]["sinks"] |= {"properties": followed, "additionalProperties": False}
    schema["properties"]["extends"] = {"type": "string", "description": "Recipe that this one changes"}
    schema["required"] = []
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Gristmill recipe", **schema}


def _sink(config: type[SinkConfig], definitions: dict[str, Any]) -> dict[str, Any]:
    branch = config.model_json_schema(ref_template="#/$defs/{model}")
    definitions |= branch.pop("$defs", {})
    return {"anyOf": [branch, {"type": "null"}]}
