"""The exchanges of a batch interface: small JSON objects through the line's `Wire`, and files of lines as they arrive.

A results file may hold gigabytes. So it is read with a session of its own, whose stream waits for whoever reads it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import orjson

from gristmill.core.errors import ProviderError
from gristmill.llm.failure import failure
from gristmill.llm.provider import Unanswered
from gristmill.llm.wire import LARGEST_REPLY, Wire

PIECE = 1 << 16  # bytes read at once
IDLE = 120.0  # seconds of silence within a file


async def exchange(
    wire: Wire, method: str, path: str, data: bytes = b"", *, content_type: str = "application/json"
) -> dict[str, Any]:
    """The answer's JSON object."""
    answer = await wire.request(method, path, data, content_type=content_type)
    try:
        found = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise Unanswered(f"{wire.url} answered {method} {path} with something else than a JSON object")
    return found


async def lines(wire: Wire, path: str) -> AsyncGenerator[dict[str, Any], None]:
    """The objects of a JSONL file, one by one. Unanswered if it breaks off; what came before has been given."""
    clocks = aiohttp.ClientTimeout(total=None, connect=wire.patience.connect, sock_read=IDLE)
    try:
        async with (
            aiohttp.ClientSession(timeout=clocks, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(wire.url + path, headers=wire.headers(), allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise failure(wire.url, response.status, response.headers, await response.content.read(PIECE))
            rest = b""
            async for piece in response.content.iter_chunked(PIECE):
                *whole, rest = (rest + piece).split(b"\n")
                if len(rest) > LARGEST_REPLY:
                    raise ProviderError(f"{wire.url}{path} holds a line of more than {LARGEST_REPLY >> 20} MiB")
                for line in whole:
                    if line.strip():
                        yield _object(wire, path, line)
            if rest.strip():
                yield _object(wire, path, rest)
    except TimeoutError as error:
        raise Unanswered(f"{wire.url}{path} fell silent for {IDLE:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unanswered(f"the connection to {wire.url} broke: {error or type(error).__name__}") from error


def _object(wire: Wire, path: str, line: bytes) -> dict[str, Any]:
    """A line that is no object ends a file that was cut off."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise Unanswered(f"{wire.url}{path} holds a line that is no JSON object")
    return found
