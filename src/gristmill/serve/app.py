"""The HTTP face: /v1/models, /v1/chat/completions (whole or streamed), /health. OpenAI's shapes, errors included. A
classifier has /classify instead of the chat (`serve.sorter`).

Doors kept shut: a body over a megabyte; a body that is not declared as JSON (a web page could send one unasked); on
loopback a Host that is not this machine (DNS rebinding); where a key is set, everything but /health without it.
"""

from __future__ import annotations

import hashlib
import hmac
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gristmill.core.secrets import resolve
from gristmill.serve.generation import Generator, Piece, engine_gone
from gristmill.serve.wire import ApiError, ChatRequest, read_request

MOST_BYTES = 1 << 20


def make_app(
    generator: Callable[[], Generator],
    *,
    alive: Callable[[], bool],
    model_id: str,
    api_key: str | None = None,
    hosts: list[str] | None = None,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    """The application. `generator` is asked for when needed: it lives between the lifespan's start and end."""
    locked = resolve(api_key) if api_key else None
    app = base_app(alive=alive, model_id=model_id, locked=locked, hosts=hosts, lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        admit(request, locked)
        asked = read_request(await body_of(request), model_id=model_id)
        if not alive():
            raise engine_gone()
        ids = await generator().prompt(asked)
        if asked.stream:
            pieces = await _begun(generator().answer(asked, ids))
            return StreamingResponse(_stream(asked, len(ids), pieces), media_type="text/event-stream")
        return JSONResponse(await _whole(asked, len(ids), generator().answer(asked, ids), request))

    return app


def base_app(
    *,
    alive: Callable[[], bool],
    model_id: str,
    locked: str | None,
    hosts: list[str] | None = None,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    """What every served model has: its card, its health, errors in OpenAI's shape. `locked`: the key to be shown."""
    app = FastAPI(title="Gristmill", lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    if hosts:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts)
    born = int(time.time())

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body, error.status)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def nowhere(request: Request, _: Exception) -> Response:
        error = ApiError(404, f"nothing answers {request.method} {request.url.path}", code="not_found")
        return JSONResponse(error.body, error.status)

    @app.get("/health")
    async def health() -> Response:
        well = alive()
        return JSONResponse({"status": "ok" if well else "engine stopped", "model": model_id}, 200 if well else 503)

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        admit(request, locked)
        card = {"id": model_id, "object": "model", "created": born, "owned_by": "gristmill"}
        return JSONResponse({"object": "list", "data": [card]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str, request: Request) -> Response:
        admit(request, locked)
        if name != model_id:
            raise ApiError(404, f"the model {name!r} is not served here; this is {model_id!r}", code="model_not_found")
        return JSONResponse({"id": model_id, "object": "model", "created": born, "owned_by": "gristmill"})

    return app


def admit(request: Request, locked: str | None) -> None:
    if locked is None:
        return
    given = request.headers.get("authorization", "").removeprefix("Bearer ")
    digests = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, locked))
    if not hmac.compare_digest(*digests):
        raise ApiError(401, "a valid API key is needed", code="invalid_api_key")


async def body_of(request: Request) -> bytes:
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "send Content-Type: application/json", code="unsupported_media_type")
    raw = bytearray()
    async for part in request.stream():
        raw += part
        if len(raw) > MOST_BYTES:
            raise ApiError(413, f"a request holds at most {MOST_BYTES} bytes", code="request_too_large")
    return bytes(raw)


def _usage(prompt: int, tokens: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def _head(asked: ChatRequest, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": asked.model}


async def _whole(
    asked: ChatRequest, prompt: int, pieces: AsyncGenerator[Piece, None], request: Request
) -> dict[str, Any]:
    text: list[str] = []
    last = Piece("")
    async with aclosing(pieces) as source:
        async for piece in source:
            if await request.is_disconnected():
                break
            text.append(piece.text)
            last = piece
    message = {"role": "assistant", "content": "".join(text), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish}
    return {**_head(asked, "chat.completion"), "choices": [choice], "usage": _usage(prompt, last.tokens)}


async def _begun(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    """The same pieces, the first one already here: what fails before it is still an HTTP error."""
    first = await anext(pieces)

    async def all_of_them() -> AsyncGenerator[Piece, None]:
        async with aclosing(pieces) as rest:
            yield first
            async for piece in rest:
                yield piece

    return all_of_them()


async def _stream(asked: ChatRequest, prompt: int, pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[bytes, None]:
    head = _head(asked, "chat.completion.chunk")
    wants_usage = asked.stream_options is not None and asked.stream_options.include_usage
    more: dict[str, Any] = {"usage": None} if wants_usage else {}

    def chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**head, "choices": [choice], **more})

    yield chunk({"role": "assistant", "content": ""})
    try:
        async with aclosing(pieces) as source:
            async for piece in source:
                if piece.text:
                    yield chunk({"content": piece.text})
                if piece.finish:
                    yield chunk({}, piece.finish)
                    if wants_usage:
                        yield _event({**head, "choices": [], "usage": _usage(prompt, piece.tokens)})
    except ApiError as error:  # the status line is out already: say it in the stream, and do not say [DONE]
        yield _event(error.body)
        return
    yield b"data: [DONE]\n\n"


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
