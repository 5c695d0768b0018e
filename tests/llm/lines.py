"""Providers as the client makes them, one attempt at a time: `async with openai(fake.url) as provider`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from gristmill.llm.provider import Request
from gristmill.llm.providers.anthropic import AnthropicProvider
from gristmill.llm.providers.openai import OpenAIProvider
from gristmill.llm.spec import AnthropicSpec, OpenAISpec

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PROVIDERS = ("openai", "anthropic")


@asynccontextmanager
async def openai(url: str, *, notes: Any = None, **spec: Any) -> AsyncIterator[OpenAIProvider]:
    provider = OpenAIProvider(OpenAISpec(provider="openai", base_url=url, **{"model": "m", **spec}), notes=notes)
    try:
        yield provider
    finally:
        await provider.close()


@asynccontextmanager
async def anthropic(url: str, *, notes: Any = None, **spec: Any) -> AsyncIterator[AnthropicProvider]:
    made = AnthropicSpec(provider="anthropic", base_url=url, **{"model": "m", **spec})
    provider = AnthropicProvider(made, notes=notes)
    try:
        yield provider
    finally:
        await provider.close()


KINDS = {"openai": openai, "anthropic": anthropic}


def question(text: str = "How deep is the water at the pier?", **more: Any) -> Request:
    return Request(messages=({"role": "user", "content": text},), **{"max_tokens": 50, **more})


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    """The address of a server in this process that answers every POST by `handler`."""
    app = web.Application()
    app.router.add_post("/{rest:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
