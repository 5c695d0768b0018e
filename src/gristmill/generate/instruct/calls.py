"""Conversations that call a tool: request, call, result, answer; or, where no tool fits, an answer that says so.

The call comes first: its arguments are drawn by the tool's own schema, the request is then written so that it says
every one of them, and code looks whether it does. So a call always follows from its request, as APIGen's checks of
format and meaning demand (Liu et al. 2024, arXiv 2406.18518); tools are described, not executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel

from gristmill.core.ask import Model, Parsed
from gristmill.core.records import Draft, Message, Origin, Sample
from gristmill.core.stage import StepContext
from gristmill.generate.answer_fields import FieldSchema
from gristmill.generate.instruct.stages import ToolCallsConfig
from gristmill.generate.instruct.tools import Tool, json_of
from gristmill.generate.instruct.wording import language_for
from gristmill.generate.source import Language
from gristmill.generate.wording import holds, word_count

T = TypeVar("T")
_SYSTEM = (
    "You may call these tools, one at a time, by answering with nothing but "
    '<tool_call>{{"name": …, "arguments": {{…}}}}</tool_call>:\n<tools>\n{tools}\n</tools>'
)
_VALUES, _WORDS = 500, 300  # tokens of JSON and of a message
_REMNANT = re.compile(r"</?tool|```|[{\[]\s*\"")


@dataclass
class _Talk:
    """One conversation in the making."""

    config: ToolCallsConfig
    ctx: StepContext
    model: Model
    tool: Tool
    language: Language
    number: int
    calls: list[str] = field(default_factory=list)

    async def ask(self, prompt: str, check: Callable[[str], str], **values: object) -> str:
        return self._kept(
            await self.model.ask(
                self.ctx.prompt(f"instruct_tool_{prompt}").render(language=self.language.name, **values),
                check,
                max_tokens=_WORDS,
                temperature=self.config.temperature,
                sample=self.number,
            )
        )

    async def fill(self, prompt: str, schema: type[BaseModel], **values: object) -> dict[str, Any]:
        parsed = await self.model.structured(
            self.ctx.prompt(f"instruct_tool_{prompt}").render(language=self.language.name, **values),
            schema,
            max_tokens=_VALUES,
            temperature=self.config.temperature,
            sample=self.number,
        )
        return self._kept(parsed).model_dump(by_alias=True)

    def _kept(self, parsed: Parsed[T]) -> T:
        self.calls += parsed.calls
        return parsed.value


async def write(config: ToolCallsConfig, record: Draft, ctx: StepContext) -> list[Sample]:
    row: Any = record.data["tool"]
    offered: Any = record.data["offered"]
    tool, language = Tool.model_validate(row), language_for(config.language, row)
    shown = "\n".join(json_of(Tool.model_validate(other).shown()) for other in offered)
    number = int(str(record.data["number"]))
    talk = _Talk(config, ctx, ctx.model(config.model), tool, language, number)
    arguments = await talk.fill("values", tool.takes, tool=json_of(tool.shown()), number=number + 1)
    request = await talk.ask(
        "request",
        lambda text: _check_request(text, tool, arguments),
        description=tool.description,
        values="\n".join(f"{name}: {_said(value)}" for name, value in arguments.items()),
    )
    said = [Message(role="system", content=_SYSTEM.format(tools=shown)), Message(role="user", content=request)]
    if record.data["missing"]:
        answer = await talk.ask("none", _check_words, tools=shown, request=request)
        said.append(Message(role="assistant", content=answer, train=True))
    else:
        said += await _called(talk, request, arguments)
    origin = Origin(stage=ctx.stage, prompt=ctx.prompt("instruct_tool_request").ref, model=talk.model.identity)
    return [
        Sample(
            form="chat",
            kind="tool_refusal" if record.data["missing"] else "tool_call",
            messages=tuple(said),
            language=language.code,
            parents=(record.id,),
            origin=origin.model_copy(update={"calls": tuple(talk.calls)}),
        )
    ]


async def _called(talk: _Talk, request: str, arguments: dict[str, Any]) -> list[Message]:
    call = json_of({"name": talk.tool.name, "arguments": arguments})
    result = await talk.fill("result", talk.tool.gives, tool=json_of(talk.tool.shown()), call=call)
    found = json_of(result)
    answer = await talk.ask("answer", lambda text: _check_answer(text, result), request=request, result=found)
    return [
        Message(role="assistant", content=f"<tool_call>{call}</tool_call>", train=True),
        Message(role="tool", content=found),
        Message(role="assistant", content=answer, train=True),
    ]


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _stated(fields: dict[str, FieldSchema], values: dict[str, Any]) -> Iterator[str]:
    """The values that can be looked for word by word: not choices and truths, which have many wordings."""
    for name, value in values.items():
        if fields[name].enum is None and not isinstance(value, bool):
            yield from map(str, value if isinstance(value, list) else [value])


def _holds(text: str, value: str) -> bool:
    text, value = " ".join(text.split()), " ".join(value.split())
    return holds(text, value) or (value.endswith(".0") and holds(text, value[:-2]))


def _check_words(text: str) -> str:
    text = text.strip()
    if word_count(text) < 3:
        raise ValueError("write a whole sentence")
    if _REMNANT.search(text):
        raise ValueError("write plain words: no JSON and no tags")
    return text


def _check_request(text: str, tool: Tool, arguments: dict[str, Any]) -> str:
    text = _check_words(text)
    if "_" in tool.name and tool.name.casefold() in text.casefold():
        raise ValueError("do not name the tool: say what is wanted")
    if missing := [value for value in _stated(tool.parameters, arguments) if not _holds(text, value)]:
        raise ValueError(f"say this, word for word: {'; '.join(missing)}")
    return text


def _check_answer(text: str, result: dict[str, Any]) -> str:
    """It says something of the result, if that has anything but truths, which have many wordings."""
    text = _check_words(text)
    parts = [part for value in result.values() for part in (value if isinstance(value, list) else [value])]
    values = [str(part) for part in parts if not isinstance(part, bool)]
    if values and not any(_holds(text, value) for value in values):
        raise ValueError(f"say what was found: {'; '.join(values)[:200]}")
    return text
