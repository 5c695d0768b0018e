"""Connections to a PostgreSQL server, in a thread with an event loop of its own, made again when they break.

The store is used from loops that come and go, and from threads that have none; connections belong to one loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import ExitStack
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg

from gristmill.core.errors import ConfigError, StoreError

T = TypeVar("T")
Work = Callable[["asyncpg.Connection[Any]"], Awaitable[T]]

CONNECT_SECONDS = 10
COMMAND_SECONDS = 60  # past this, the connection is taken for lost
RECONNECT_SECONDS = 120  # a server that restarts is waited for this long
LONGEST_WAIT = 2.0  # seconds between attempts
_SETTINGS = {"synchronous_commit": "on", "idle_in_transaction_session_timeout": "60s", "jit": "off"}
# The server lets go of what a machine held that is gone, half a minute after it was last heard of.
_SETTINGS |= {"tcp_keepalives_idle": "15", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
_HINT = "Check the address and that the server accepts connections; what was confirmed is kept."

LOST = (
    OSError,  # also TimeoutError
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,  # the server is shutting down or starting up
    asyncpg.TooManyConnectionsError,
)
AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


def named(address: str) -> str:
    """An address as people may see it: without user and password."""
    try:
        parts = urlsplit(address)
        place = f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
    except ValueError:
        place = "the address given"
    return f"PostgreSQL at {place}"


class LoopThread:
    """An event loop that runs beside whatever the caller does."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="store-server", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run it there and wait for it here."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Link:
    """One connection, used by one at a time. `greet` is done first over every connection that is made."""

    def __init__(self, address: str, *, greet: Work[None] | None = None) -> None:
        self._address = address
        self._greet = greet
        self._place = named(address)
        self._connection: asyncpg.Connection[Any] | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """The first time: a server that cannot be reached is a mistake of the configuration, not a passing fault."""
        try:
            self._connection = await self._connect()
        except (*LOST, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise ConfigError(f"the store, {self._place}, cannot be reached: {_reason(error)}", _HINT) from None

    async def run(self, work: Work[T]) -> T:
        """Do it over a connection that holds: `work` may be called again, and must bear it."""
        async with self._turn:
            deadline, wait = time.monotonic() + RECONNECT_SECONDS, 0.05
            while True:
                try:
                    if self._connection is None or self._connection.is_closed():
                        self._connection = await self._connect()
                    return await work(self._connection)
                except (*LOST, *AGAIN, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    if not self._passes(error):
                        raise StoreError(
                            f"the store, {self._place}, cannot be used: {_reason(error)}", _HINT
                        ) from error
                    if time.monotonic() > deadline:
                        raise StoreError(f"the store, {self._place}, is gone: {_reason(error)}", _HINT) from None
                await asyncio.sleep(wait)
                wait = min(LONGEST_WAIT, 2 * wait)

    async def once(self, work: Work[object]) -> None:
        """Do it if the connection stands. If it does not, or breaks, it is gone, with all that the session held."""
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                return
            try:
                await work(self._connection)
            except (*LOST, asyncpg.PostgresError, asyncpg.InterfaceError):
                self._drop()

    async def close(self) -> None:
        async with self._turn:
            if self._connection is not None and not self._connection.is_closed():
                try:
                    await self._connection.close(timeout=CONNECT_SECONDS)
                except LOST:
                    self._drop()

    async def _connect(self) -> asyncpg.Connection[Any]:
        connection = await asyncpg.connect(
            self._address, timeout=CONNECT_SECONDS, command_timeout=COMMAND_SECONDS, server_settings=_SETTINGS
        )
        with ExitStack() as unfit:
            unfit.callback(connection.terminate)
            if self._greet is not None:
                await self._greet(connection)
            unfit.pop_all()
        return connection

    def _passes(self, error: Exception) -> bool:
        """Whether doing it again may help; a connection that broke is let go of."""
        if isinstance(error, AGAIN):
            return True
        lost = isinstance(error, LOST) or self._connection is None or self._connection.is_closed()
        if lost:
            self._drop()
        return lost

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _reason(error: Exception) -> str:
    """The server's words; for a mistake in the address itself only its kind, because its text may quote a password."""
    if isinstance(error, (asyncpg.PostgresError, OSError)) and str(error):
        return str(error)
    return type(error).__name__
