"""Messages → tokens by the one renderer → the engine → text as it comes. The engine never sees a message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from gristmill.core.errors import GristmillError
from gristmill.core.records import Message
from gristmill.models.renderer import Renderer
from gristmill.serve.wire import ApiError, ChatRequest

LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Piece:
    """Some text of an answer. The last piece says why the answer ended."""

    text: str
    finish: str | None = None
    tokens: int = 0  # of the whole answer, with `finish`


class Generator:
    """One model, ready to answer."""

    def __init__(self, renderer: Renderer, *, url: str, headers: dict[str, str], context: int) -> None:
        self.renderer = renderer
        self.context = context
        # A connection of its own for each request: the engine closes idle ones when it likes, and one that it closes
        # just as the next request is written would look like an engine that has stopped.
        self._session = aiohttp.ClientSession(
            url,
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, sock_read=600),
            read_bufsize=LINE_BYTES,
        )
        renderer.chat([Message(role="user", content="?")], generate=True)  # its proof, before threads share it

    async def prompt(self, request: ChatRequest) -> list[int]:
        """The token ids that the model goes on from: what its training showed it before an answer."""
        messages = [message.to_message() for message in request.messages]
        try:
            ids = (await asyncio.to_thread(self.renderer.chat, messages, generate=True)).ids
        except GristmillError as error:
            raise ApiError(400, f"{error.message} {error.hint}".strip(), param="messages") from error
        wanted = len(ids) + (request.limit or 1)
        if wanted > self.context:
            message = (
                f"the context holds {self.context} tokens; the messages take {len(ids)} and the answer "
                f"{request.limit or 'at least 1'}"
            )
            raise ApiError(400, message, code="context_length_exceeded", param="messages")
        return ids

    async def answer(self, request: ChatRequest, ids: list[int]) -> AsyncGenerator[Piece, None]:
        """The answer in pieces. Leaving early ends the work in the engine too."""
        body = {
            "prompt": ids,
            "max_tokens": request.limit or self.context - len(ids),
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": 0,
            "min_p": 0.0,
            "presence_penalty": request.presence_penalty,
            "frequency_penalty": request.frequency_penalty,
            "stop": request.stops,
            "cache_prompt": False,  # the same question gets the same answer, whoever asked before
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.seed is not None:
            body["seed"] = request.seed
        finish, tokens = None, 0
        try:
            async with aclosing(self._events(body)) as events:
                async for event in events:
                    tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
                    for choice in event.get("choices", []):
                        finish = choice.get("finish_reason") or finish
                        if choice.get("text"):
                            yield Piece(choice["text"])
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise engine_gone() from error
        if finish is None:
            raise engine_gone()
        yield Piece("", finish, tokens)

    async def _events(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        async with self._session.post("/v1/completions", data=orjson.dumps(body), headers=_JSON) as reply:
            if reply.status != 200:
                raise ApiError(502, f"the engine answered {reply.status}: {(await reply.text())[:300]}", code="engine")
            async for line in reply.content:
                data = line.removeprefix(b"data: ").strip()
                if line.startswith(b"error:") or b'"error"' in data[:12]:
                    raise ApiError(502, f"the engine failed: {data[:300].decode(errors='replace')}", code="engine")
                if line.startswith(b"data: ") and data != b"[DONE]":
                    yield orjson.loads(data)

    async def close(self) -> None:
        await self._session.close()


def engine_gone() -> ApiError:
    return ApiError(503, "the engine has stopped; start the server again", code="engine_stopped")


_JSON = {"Content-Type": "application/json"}
