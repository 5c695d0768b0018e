"""What a model thinks is kept apart from what it says, however a server sends it, and is counted as output."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from tests.fakes.fixtures import FakeServer
from tests.llm.lines import KINDS, openai, question, serving

from gristmill.core.ask import Usage
from gristmill.llm.provider import split_reasoning

THOUGHT = "They ask about pier."


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "form"),
    [
        ("openai", "reasoning_content"), ("openai", "reasoning"), ("openai", "tags"), ("openai", "closed"),
        ("anthropic", "blocks"),
    ],
)  # fmt: skip
async def test_thoughts_are_no_part_of_the_answer(one_server: FakeServer, kind: str, form: str, stream: bool) -> None:
    one_server.fresh(think=form)
    async with KINDS[kind](one_server.url, stream=stream) as provider:  # type: ignore[operator]
        reply = await provider.send(question())
    assert reply.reasoning == THOUGHT
    assert reply.text.endswith(".") and "ask about" not in reply.text and "think" not in reply.text
    assert 0 < reply.usage.reasoning < reply.usage.output


@pytest.mark.parametrize(
    ("text", "answer", "thoughts"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", "Yes.", "Hm."),
        ("Hm.\n</think>\n\nYes.", "Yes.", "Hm."),
        ("<think>Hm.", "", "Hm."),
        ("I <think> so", "I <think> so", ""),
        ("The tags are <think> and </think>.", "The tags are <think> and </think>.", ""),
        ("<think></think>Yes.", "Yes.", ""),
        ("", "", ""),
    ],
)
def test_thoughts_inside_a_text(text: str, answer: str, thoughts: str) -> None:
    assert split_reasoning(text) == (answer, thoughts)


SAID = {"type": "text", "text": "Yes."}


@pytest.mark.parametrize(
    ("message", "text", "thoughts"),
    [
        ({"content": "Yes.", "reasoning_content": "Hm."}, "Yes.", "Hm."),
        ({"content": [{"type": "thinking", "thinking": [SAID | {"text": "Hm."}]}, SAID]}, "Yes.", "Hm."),
        ({"content": "Yes.", "reasoning": {"effort": "low"}}, "Yes.", ""),
    ],
)  # fmt: skip
async def test_other_forms(message: dict[str, Any], text: str, thoughts: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})

    async with serving(answer) as url, openai(url) as provider:
        reply = await provider.send(question())
    assert (reply.text, reply.reasoning) == (text, thoughts)


async def test_thoughts_cut_off_are_a_truncated_answer() -> None:
    async def answer(_: web.Request) -> web.Response:
        message = {"content": None, "reasoning_content": "Hm, hm, hm"}
        return web.json_response({"choices": [{"message": message, "finish_reason": "length"}]})

    async with serving(answer) as url, openai(url) as provider:
        reply = await provider.send(question())
    assert (reply.text, reply.finish, reply.reasoning) == ("", "length", "Hm, hm, hm")


@pytest.mark.parametrize(
    ("usage", "ours"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}, Usage(9, 5)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 34,
          "completion_tokens_details": {"reasoning_tokens": 20}}, Usage(9, 25, reasoning=20)),  # xAI, Gemini
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_cache_hit_tokens": 4}, Usage(9, 5, cached=4)),  # DeepSeek
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
         Usage(9, 5, cached=4)),
        ({"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": None}, Usage(9, 5)),
        ({"completion_tokens": 5}, Usage(known=False)),
        (None, Usage(known=False)),
    ],
)  # fmt: skip
async def test_usage_is_what_is_billed(usage: dict[str, Any] | None, ours: Usage) -> None:
    async def answer(_: web.Request) -> web.Response:
        choice = {"message": {"content": "Yes."}, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": usage})

    async with serving(answer) as url, openai(url) as provider:
        assert (await provider.send(question())).usage == ours
