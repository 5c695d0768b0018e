"""Writes docs/reference.md: models, every stage kind, every sink and every verb, from the code itself.

python .ci/reference.py [FILE]
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from gristmill.core.stage import STAGES, StageConfig
from gristmill.llm.budget import Limits
from gristmill.llm.spec import AnthropicSpec, BatchSpec, LocalSpec, OpenAISpec, PriceSpec, StageSpec
from gristmill.runs.search import Sweep
from gristmill.runs.sinks.kinds import SINKS

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "reference.md"
ROOMS = ("ingest", "generate", "curate", "train", "evaluate")
HEAD = """# Reference

Written by `make docs` from the code; a test keeps it current.
"""
SHARED = set(StageConfig.model_fields)
MODELS: dict[str, type[BaseModel]] = {
    "provider: openai": OpenAISpec,
    "provider: anthropic": AnthropicSpec,
    "provider: local": LocalSpec,
    "from: a stage": StageSpec,
    "price": PriceSpec,
    "batch": BatchSpec,
    "budget": Limits,
    "sweep": Sweep,
}


def named(schema: dict[str, Any], known: dict[str, Any]) -> str:
    """A JSON schema's type in a word or two."""
    if reference := schema.get("$ref"):
        return named(known[reference.rpartition("/")[2]], known)
    if options := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(named(o, known) for o in options if o.get("type") != "null"))
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return " or ".join(f"`{c}`" for c in choices)
    if schema.get("type") == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{}])[0]
        return f"list of {named(items, known)}"
    if schema.get("properties"):
        return "{" + ", ".join(schema["properties"]) + "}"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false", "object": "mapping"}
    return words.get(schema.get("type", ""), schema.get("type", "anything"))


def shown(schema: dict[str, Any], name: str, required: list[str]) -> str:
    if name in required:
        return "required"
    default = schema.get("default", "")
    return f"`{default}`" if default not in ("", None, [], {}) else ""


def rows(config: type[BaseModel], fields: set[str]) -> list[str]:
    schema = config.model_json_schema()
    required, known = schema.get("required", []), schema.get("$defs", {})
    return [
        f"| `{name}` | {named(field, known)} | {shown(field, name, required)} | {field.get('description', '')} |"
        for name, field in schema["properties"].items()
        if name in fields
    ]


def table(config: type[BaseModel], fields: set[str]) -> str:
    found = rows(config, fields)
    return "\n".join(["| key | is | default | |", "|---|---|---|---|", *found]) if found else "No keys of its own."


def stages() -> list[str]:
    parts = ["## Stages", "Every stage may say:", table(StageConfig, SHARED)]
    for room in ROOMS:
        known: STAGES = importlib.import_module(f"gristmill.{room}.stages").STAGES
        for kind, made_of in known.items():
            takes = " or ".join(t.__name__ for t in made_of[0].takes) or "files"
            gives = " or ".join(t.__name__ for t in made_of[-1].gives) or "files"
            config = made_of[-1].config
            says = (config.__doc__ or "").strip() if "__doc__" in vars(config) else ""
            parts += [f"### {kind}", f"{takes} → {gives}", says, table(config, set(config.model_fields) - SHARED)]
    return [part for part in parts if part]


def models() -> list[str]:
    """What a recipe says of its models, its budget and its sweep."""
    parts = ["## Models"]
    for title, config in MODELS.items():
        keys = set(config.model_json_schema()["properties"])
        parts += [f"### {title}", (config.__doc__ or "").strip(), table(config, keys)]
    return parts


def trackers() -> list[str]:
    parts = ["## Sinks", "Under `sinks:`, each with its settings; `{}` where it needs none."]
    for name, kind in SINKS.items():
        keys = set(kind.config.model_fields)
        parts += [f"### sinks.{name}", (kind.config.__doc__ or "").strip(), table(kind.config, keys)]
    return parts


def help_of(*verb: str) -> str:
    command = [Path(sys.executable).with_name("gristmill"), *verb, "--help"]
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100", "NO_COLOR": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.rstrip()


def verbs() -> list[str]:
    parts = ["## Verbs"]
    for line in help_of().partition("Commands:")[2].splitlines():
        if verb := line.strip().partition(" ")[0]:
            text = "\n".join(row.rstrip() for row in help_of(verb).splitlines())
            parts += [f"### gristmill {verb}", f"```text\n{text}\n```"]
    return parts


def main(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n\n".join([HEAD.strip(), *models(), *stages(), *trackers(), *verbs()]) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
