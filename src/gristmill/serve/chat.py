"""The other end of the line: a conversation with a served model, and a server that lives as long as it is needed."""

from __future__ import annotations

import asyncio
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from gristmill.core.errors import GristmillError, ProviderError
from gristmill.models.weights import Weights
from gristmill.serve.server import Served, listen, open_door

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # this machine is not behind a proxy


class Conversation:
    """Messages said so far, and what comes next. The model is the first that the server names."""

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self.messages: list[dict[str, str]] = []
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        with self._open("/v1/models") as reply:
            self.model = str(orjson.loads(reply.read())["data"][0]["id"])

    def say(self, text: str) -> Iterator[str]:
        """The answer, piece by piece. It joins the conversation once it is whole."""
        asked = [*self.messages, {"role": "user", "content": text}]
        body = orjson.dumps({"model": self.model, "messages": asked, "stream": True})
        said: list[str] = []
        with self._open("/v1/chat/completions", body) as reply:
            for line in reply:
                data = line.removeprefix(b"data: ").strip()
                if not data or data == b"[DONE]":
                    continue
                event = orjson.loads(data)
                if "error" in event:
                    raise ProviderError(event["error"]["message"])
                piece = event["choices"][0]["delta"].get("content", "") if event["choices"] else ""
                if piece:
                    said.append(piece)
                    yield piece
        self.messages = [*asked, {"role": "assistant", "content": "".join(said)}]

    def _open(self, path: str, body: bytes | None = None):  # type: ignore[no-untyped-def]
        request = urllib.request.Request(self.url + path, body, self._headers)  # noqa: S310  (our own server's address)
        try:
            return _DIRECT.open(request, timeout=600)
        except urllib.error.HTTPError as error:
            raise ProviderError(_reason(error), status=error.code) from error
        except OSError as error:
            raise ProviderError(f"cannot reach {self.url}: {error}", "Is the server running?") from error


def _reason(error: urllib.error.HTTPError) -> str:
    raw = error.read()
    try:
        return str(orjson.loads(raw)["error"]["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return f"the server answered {error.code}"


@contextmanager
def local_server(
    gguf: Path, *, weights: Weights, model_id: str, slots: int = 1, context: int = 2048, threads: int | None = None
) -> Iterator[str]:
    """A server of one's own on a free port of loopback; gives its address, and ends it with the block."""
    news: queue.Queue[str | GristmillError] = queue.Queue()
    loop = asyncio.new_event_loop()
    until = asyncio.Event()

    async def run() -> None:
        served = Served(gguf, weights, model_id, slots, context, threads)
        with open_door("127.0.0.1", 0, None) as door:
            await listen(served, door, announce=news.put, until=until)

    def work() -> None:
        try:
            loop.run_until_complete(run())
        except GristmillError as error:
            news.put(error)
        finally:
            news.put(ProviderError("the server ended before it was ready"))
            loop.close()

    thread = threading.Thread(target=work, name="gristmill-serve", daemon=True)
    thread.start()
    try:
        first = news.get()
        if isinstance(first, GristmillError):
            raise first
        yield first
    finally:
        with suppress(RuntimeError):  # its loop is closed: it ended by itself
            loop.call_soon_threadsafe(until.set)
        thread.join()
