"""Weights behind an address, for as long as someone listens: engine first, then the door, and both end together."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from gristmill.core.errors import ConfigError
from gristmill.core.secrets import env_name
from gristmill.models.weights import Weights

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

GRACE_SECONDS = 10


@dataclass(frozen=True)
class Served:
    """What is served: the file that llama.cpp reads, the weights whose tokenizer and template render for it, a name."""

    gguf: Path
    weights: Weights
    model_id: str
    slots: int = 4
    context: int = 2048
    threads: int | None = None


def serve(
    gguf: Path,
    *,
    weights: Weights,
    model_id: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    slots: int = 4,
    context: int = 2048,
    threads: int | None = None,
    announce: Callable[[str], None] = lambda url: None,  # noqa: ARG005
) -> None:
    """Serve until Ctrl-C or SIGTERM. `announce` hears the address once it answers; port 0 picks a free one."""
    served = Served(gguf, weights, model_id, slots, context, threads)
    with suppress(KeyboardInterrupt), open_door(host, port, api_key) as door:
        asyncio.run(listen(served, door, api_key=api_key, announce=announce))


async def listen(
    served: Served,
    door: socket.socket,
    *,
    api_key: str | None = None,
    announce: Callable[[str], None],
    until: asyncio.Event | None = None,
) -> None:
    """Serve on an open socket until a signal comes, or until `until` is set."""
    from gristmill.llm.local.engine import EngineSettings, LocalEngine, default_threads
    from gristmill.models.renderer import Renderer
    from gristmill.serve.app import make_app
    from gristmill.serve.generation import Generator

    renderer = Renderer.load(served.weights)
    context = min(served.context, renderer.context)
    settings = EngineSettings(served.slots, context, served.threads or default_threads())
    ready: list[Generator] = []
    with tempfile.TemporaryDirectory(prefix="gristmill-serve-") as folder:
        engine = LocalEngine(served.gguf, settings, log=Path(folder) / "engine.log", emit=lambda *_, **__: None)

        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncIterator[None]:
            ready.append(Generator(renderer, url=wire.url, headers=wire.headers(), context=context))
            yield
            await ready[0].close()

        app = make_app(
            lambda: ready[0],
            alive=lambda: engine.alive,
            model_id=served.model_id,
            api_key=api_key,
            hosts=_hosts(door),
            lifespan=lifespan,
        )
        try:
            wire = await engine.start()
            await _answer(app, door, announce, until)
        finally:
            await engine.stop()


def serve_sorter(
    weights: Weights,
    *,
    model_id: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    context: int = 512,
    announce: Callable[[str], None] = lambda url: None,  # noqa: ARG005
) -> None:
    """Serve a classifier until Ctrl-C or SIGTERM: POST /classify. The weights themselves answer, no engine."""
    from gristmill.models.classifier import Classifier
    from gristmill.serve.sorter import make_sorter

    with suppress(KeyboardInterrupt), open_door(host, port, api_key) as door:
        app = make_sorter(Classifier(weights, context=context), model_id=model_id, api_key=api_key, hosts=_hosts(door))
        asyncio.run(_answer(app, door, announce, None))


def _hosts(door: socket.socket) -> list[str] | None:
    """On loopback, the names of this machine."""
    loopback = ip_address(door.getsockname()[0]).is_loopback
    return ["127.0.0.1", "localhost", "[::1]"] if loopback else None


async def _answer(
    app: FastAPI, door: socket.socket, announce: Callable[[str], None], until: asyncio.Event | None
) -> None:
    """Let an application answer at a door, until a signal comes or `until` is set."""
    import uvicorn

    host, port = door.getsockname()[:2]
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve(sockets=[door]))
    watch = asyncio.create_task(_tell(server, running, f"http://{_shown(host)}:{port}", announce, until))
    await running
    await watch


async def _tell(
    server: uvicorn.Server,
    running: asyncio.Task[None],
    url: str,
    announce: Callable[[str], None],
    until: asyncio.Event | None,
) -> None:
    while not server.started and not running.done():
        await asyncio.sleep(0.01)
    if server.started:
        announce(url)
    if until is not None:
        ended = asyncio.create_task(until.wait())
        await asyncio.wait([ended, running], return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        server.should_exit = True


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def open_door(host: str, port: int, api_key: str | None) -> socket.socket:
    """A socket that already listens for this address alone; refuses what would be open to the network without a key."""
    if importlib.util.find_spec("fastapi") is None or importlib.util.find_spec("uvicorn") is None:
        raise ConfigError("serving needs fastapi and uvicorn", "pip install 'gristmill[serve]'")
    if api_key is not None and env_name(api_key) is None:
        raise ConfigError("the API key stands in the open", "Name a variable: --api-key env:NAME.")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise ConfigError(f"there is no address {host}: {error.strerror}", "Use 127.0.0.1.") from error
    if not ip_address(found[4][0]).is_loopback and api_key is None:
        raise ConfigError(f"{host} can be reached from the network", "Set --api-key env:NAME, or use 127.0.0.1.")
    door = socket.socket(found[0], found[1])
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind(found[4])
        door.listen(128)
    except OSError as error:
        door.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}", "Use --port 0.") from error
    return door
