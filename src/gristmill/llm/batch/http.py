"""The exchanges of a batch interface: small JSON objects through the line's `Wire`, and files of lines as they go out
and arrive.

What is handed in may hold 240 MB, and a results file gigabytes. So both have a session of their own, whose streams wait
for whoever reads: of a file, no more than a piece is held beside the lines it is made of.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

import aiohttp
import orjson

from gristmill.core.errors import ProviderError
from gristmill.core.logs import log
from gristmill.llm.provider import Unanswered, Unreached, Unusable
from gristmill.llm.wire.failure import failure
from gristmill.llm.wire.http import LARGEST_REPLY, Wire

PIECE = 1 << 16  # bytes read at once
IDLE = 120.0  # seconds of silence within a file
SHOWN = 200  # characters of a line that cannot be read


async def exchange(
    wire: Wire, method: str, path: str, data: bytes = b"", *, content_type: str = "application/json"
) -> dict[str, Any]:
    """The answer's JSON object."""
    return _told(wire, f"{method} {path}", (await wire.request(method, path, data, content_type=content_type)).body)


async def send(
    wire: Wire, path: str, parts: Callable[[], Iterator[bytes]], *, content_type: str, probe: str
) -> dict[str, Any]:
    """The answer to something large, which is made as it goes out. `probe`: a path that is asked for a little, so that
    the wire reads a refused key again."""
    try:
        return await _send(wire, path, parts, content_type)
    except Unusable as error:
        if error.status != 401:
            raise
    await exchange(wire, "GET", probe)
    return await _send(wire, path, parts, content_type)


async def _send(wire: Wire, path: str, parts: Callable[[], Iterator[bytes]], content_type: str) -> dict[str, Any]:
    size = str(sum(map(len, parts())))  # told, not chunked: stores of files want to know
    headers = wire.headers() | {"Content-Type": content_type, "Content-Length": size, "User-Agent": "gristmill"}
    clocks = aiohttp.ClientTimeout(total=wire.patience.total, sock_connect=wire.patience.connect)
    try:
        async with (
            aiohttp.ClientSession(timeout=clocks, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(wire.url + path, data=_pieces(parts()), headers=headers, allow_redirects=False) as response,
        ):
            answer = await response.read()
            if not 200 <= response.status < 300:
                raise failure(wire.url, response.status, response.headers, answer)
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        hint = "Check that the server runs, and its address."
        raise Unreached(f"cannot reach {wire.url}: {error}", hint) from error
    except TimeoutError as error:
        message = f"{wire.url} did not take {size} bytes within {wire.patience.total:g} s"
        raise Unanswered(message, "Raise the model's `timeout`, or lower its batches' `size`.") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unanswered(f"the connection to {wire.url} broke: {error or type(error).__name__}") from error
    return _told(wire, f"POST {path}", answer)


async def _pieces(parts: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Gathered: a write for each line of a batch would take longer than all else."""
    piece = bytearray()
    for part in parts:
        piece += part
        if len(piece) >= PIECE:
            yield bytes(piece)
            piece.clear()
    yield bytes(piece)


def _told(wire: Wire, what: str, raw: bytes) -> dict[str, Any]:
    found = _object(raw)
    if found is None:
        raise Unanswered(f"{wire.url} answered {what} with something else than a JSON object")
    return found


def word(made: dict[str, Any], name: str) -> str:
    """What an answer must tell."""
    if not isinstance(found := made.get(name), str):
        raise Unanswered(f"the provider's answer lacks `{name}`")
    return found


def misshapen(line: object) -> None:
    """A result that nobody can read. The others can be, and the request it was for counts as lacking one."""
    log("batch_line_unreadable", line=str(line)[:SHOWN])


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
                    if (found := _object(line)) is not None:
                        yield found
                    elif line.strip():
                        misshapen(line)
            if (found := _object(rest)) is not None:
                yield found
            elif rest.strip():  # its end, and so perhaps more than that, is missing
                raise Unanswered(f"{wire.url}{path} breaks off within a line")
    except TimeoutError as error:
        raise Unanswered(f"{wire.url}{path} fell silent for {IDLE:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unanswered(f"the connection to {wire.url} broke: {error or type(error).__name__}") from error


def _object(raw: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None
