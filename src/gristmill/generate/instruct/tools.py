"""Tools as rows describe them, and which of them a conversation offers."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gristmill.core.errors import InputError
from gristmill.core.records import Draft, Record, digest_of
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.generate.answer_fields import AnswerField, answer_model
from gristmill.generate.columns import require
from gristmill.generate.instruct.stages import ToolCallsConfig


class Tool(BaseModel):
    """One function: what it takes and what it gives, in the words of `fields` of generate.ask."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
    description: str = Field(min_length=1)
    parameters: dict[str, AnswerField] = Field(min_length=1)
    returns: dict[str, AnswerField] = Field(min_length=1)

    @cached_property
    def takes(self) -> type[BaseModel]:
        return answer_model(tuple(self.parameters.items()))

    @cached_property
    def gives(self) -> type[BaseModel]:
        return answer_model(tuple(self.returns.items()))

    def shown(self) -> dict[str, Any]:
        """As OpenAI's `tools` has it."""
        schema = self.takes.model_json_schema()
        parts = {
            name: {key: value for key, value in part.items() if key != "title"}
            for name, part in schema["properties"].items()
        }
        parameters = {"type": "object", "properties": parts, "required": list(parts)}
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": parameters},
        }


def json_of(value: Any) -> str:
    return orjson.dumps(value).decode()


def draw(config: ToolCallsConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """For each tool so many conversations: beside which others it is offered, and whether at all, by seed."""
    tools: dict[str, Draft] = {}  # by name: of two, neither would be the right one
    for record in records:
        if not isinstance(record, Draft):
            continue
        try:
            name = Tool.model_validate(record.data).name
        except ValidationError as error:
            yield Dropped(record, "tool that cannot be read", str(error)[:300])
            continue
        if tools.setdefault(name, record) is not record:
            yield Dropped(record, "name of another tool", name)
    if config.missing and len(tools) == 1:
        raise InputError(
            "a conversation without the right tool needs another to offer", "Give more tools, or missing: 0."
        )
    for tool in tools.values():
        for number in range(config.per_tool):
            yield _offer(config, tool, list(tools.values()), number, ctx.seed)


def _offer(config: ToolCallsConfig, tool: Draft, tools: list[Draft], number: int, seed: int) -> Draft:
    def drawn(other: Draft) -> str:
        return digest_of([seed, tool.id, number, other.id])

    missing = int(digest_of([seed, tool.id, number, "missing"])[:8], 16) / 2**32 < config.missing
    most = config.offered if missing else config.offered - 1  # how many there are must not tell that it is missing
    others = heapq.nsmallest(most, (other for other in tools if other is not tool), key=drawn)
    offered = others if missing else sorted([tool, *others], key=drawn)
    data = {"tool": tool.data, "offered": [other.data for other in offered], "missing": missing, "number": number}
    return Draft(kind="offer", data=data, parents=(tool.id, *(other.id for other in others)))


def fields(_config: ToolCallsConfig, _base: Path, before: frozenset[str] | None) -> frozenset[str] | None:
    require(("name", "description", "parameters", "returns"), before)
    return None
