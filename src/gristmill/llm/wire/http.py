"""One line to one server: bytes over HTTP/1.1 on kept connections, every failure in its class.

aiohttp's connector opens and keeps the connections (DNS, TLS, pool) and its parser reads the answers. Its session is
left out: for one POST to one address it costs more than all the rest together (0.04 of 0.065 ms of CPU), and what it
adds (cookies, redirects, forms, middleware) no model's API uses. Redirects are not followed: a key stays where it was
sent.

A request has four clocks: until the connection stands, until the answer begins, between two signs of life, and in all.
An unstreamed answer begins when it is finished, and so has only the first and the last. The head of an answer is timed
by us: the protocol's own timer starts anew with every byte, and stops for good at a `102 Processing`.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from aiohttp import ClientError, ClientRequest, ClientTimeout, TCPConnector
from aiohttp.client_exceptions import ClientConnectorCertificateError, ClientConnectorError, ServerTimeoutError
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.http import RawResponseMessage
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from yarl import URL

from gristmill.core.errors import ConfigError, exhausted
from gristmill.core.secrets import resolve
from gristmill.llm.limits.quota import Quota, read_quota
from gristmill.llm.provider import Unanswered, Unreached, Unusable, Withheld
from gristmill.llm.wire.failure import failure, words_of
from gristmill.llm.wire.sse import EventParser

LARGEST_REPLY = 64 << 20  # bytes, unpacked
KEEP_SECONDS = 15  # an idle connection: servers close theirs after 20 s and more
DNS_SECONDS = 300
SILENCE_SECONDS = 60  # until the kernel asks whether the other end still lives: routers forget silent connections

KEPT_HEADS = 32
WRONG_ADDRESS = "Check base_url: it ends in /v1 on most servers."

_NO_HEADER = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds of each clock; None leaves it to `total`."""

    connect: float = 15.0
    first: float | None = None
    idle: float | None = None
    total: float = 300.0


class Exchange(NamedTuple):
    """A whole answer, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class Wire:
    """Talks to one server. A key is read when it is first sent, and once more when the server refuses it."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        patience: Patience | None = None,
        headers: Mapping[str, str] | None = None,
        auth: Callable[[str], dict[str, str]] = bearer,
        keep: float = KEEP_SECONDS,
    ) -> None:
        self.url = url
        self._keep = keep
        self.patience = patience or Patience()
        self._base = URL(url)
        self._named_key = api_key
        self._auth = auth
        self._more = dict(headers or {})
        self._headers: dict[str, str] | None = None
        self._heads: dict[tuple[str, str, str], bytes] = {}  # requests up to their length
        self._line: tuple[TCPConnector, ClientRequest] | None = None
        self._standing = min(self.patience.connect, self.patience.total)
        self._timeout = ClientTimeout(connect=self._standing, sock_connect=self._standing)

    async def post(self, path: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], Quota | None]:
        """The answer's JSON object, and what the provider says is left of its limits."""
        status, headers, raw = await self.request("POST", path, orjson.dumps(body))
        try:
            found = orjson.loads(raw)
        except orjson.JSONDecodeError as error:
            if raw.lstrip().startswith(b"<"):
                raise Unusable(f"{self.url} answers with a web page: {words_of(raw)}", WRONG_ADDRESS) from error
            raise Unanswered(f"{self.url} answered with malformed JSON: {words_of(raw)}", charged=True) from error
        if not isinstance(found, dict):
            message = f"{self.url} answered with something else than an object: {words_of(raw)}"
            raise Unanswered(message, status=status, charged=True)
        return found, read_quota(headers)

    async def request(
        self, method: str, path: str, data: bytes = b"", *, content_type: str = "application/json"
    ) -> Exchange:
        """Any request, and its whole answer; raises for every status but 2xx."""
        sent = self.headers()
        answer = await self._exchange(method, path, data, content_type)
        if answer[0] == 401 and self._another_key(sent):
            answer = await self._exchange(method, path, data, content_type)
        if not 200 <= answer[0] < 300:
            raise failure(self.url, *answer)
        return answer

    async def stream(self, path: str, body: Mapping[str, Any], take: Callable[[bytes], bool]) -> Quota | None:
        """Give the data of each server-sent event to `take`, which says whether it brought some of the answer."""
        data, sent = orjson.dumps(body), self.headers()
        status, headers, raw = await self._streamed(path, data, take)
        if status == 401 and self._another_key(sent):
            status, headers, raw = await self._streamed(path, data, take)
        if status != 200:
            raise failure(self.url, status, headers, raw)
        return read_quota(headers)

    def headers(self) -> dict[str, str]:
        """What every request carries: for callers with a session of their own."""
        return self._headers or self._read_key()

    async def close(self) -> None:
        if self._line is not None:
            await self._line[0].close()
            self._line = None

    async def _exchange(self, method: str, path: str, data: bytes, content_type: str) -> Exchange:
        connection, deadline = await self._connect()
        try:
            message, payload = await self._send(connection, method, path, data, content_type, deadline)
            body = payload.read_nowait(-1) if payload.is_eof() else await self._rest(connection, payload, deadline)
            connection.release()
        except (ClientError, HttpProcessingError, OSError) as error:
            raise self._broken(error) from error
        finally:
            connection.close()  # nothing is left to close where it was released
        return Exchange(message.code, message.headers, body)

    async def _streamed(self, path: str, data: bytes, take: Callable[[bytes], bool]) -> Exchange:
        """As `_exchange`; the body of an answer that is a stream went to `take`."""
        connection, deadline = await self._connect()
        try:
            message, payload = await self._send(connection, "POST", path, data, "application/json", deadline)
            body = b""
            if message.code == 200:
                await self._events(connection, payload, deadline, take)
            else:
                body = await self._rest(connection, payload, deadline)
            connection.release()
        except (ClientError, HttpProcessingError, OSError) as error:
            raise self._broken(error) from error
        finally:
            connection.close()
        return Exchange(message.code, message.headers, body)

    async def _connect(self) -> tuple[Connection, float]:
        """A connection that stands, and when the request must be through."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.patience.total
        connector, target = self._line or self._open(loop)
        try:
            return await connector.connect(target, [], self._timeout), deadline
        except ClientConnectorCertificateError as error:
            raise Unusable(f"{self.url} does not prove who it is: {error}", "Check its certificate.") from error
        except ClientConnectorError as error:
            if exhausted(error.os_error):
                message = f"cannot open another connection to {self.url}: {error}"
                raise Unanswered(message, "Raise `ulimit -n`, or lower the model's `concurrency`.") from error
            hint = "Check that the server runs, and its address."
            raise Unreached(f"cannot reach {self.url}: {error}", hint) from error
        except TimeoutError as error:
            message = f"cannot reach {self.url}: no connection within {self._standing:g} s"
            raise Unreached(message, "Check its address, and the network.") from error
        except (ClientError, OSError) as error:
            raise self._broken(error, charged=False) from error

    def _open(self, loop: asyncio.AbstractEventLoop) -> tuple[TCPConnector, ClientRequest]:
        """The pool of connections, and what it needs to know of every request. The line's limiter is the only limit."""
        pool = TCPConnector(limit=0, keepalive_timeout=self._keep, ttl_dns_cache=DNS_SECONDS, socket_factory=_lasting)
        self._line = pool, ClientRequest("POST", self._base, loop=loop)
        return self._line

    async def _send(
        self, connection: Connection, method: str, path: str, data: bytes, content_type: str, deadline: float
    ) -> tuple[RawResponseMessage, StreamReader]:
        """Send a request, and wait for the head of its answer."""
        head = self._heads.get((method, path, content_type)) or self._head(method, path, content_type)
        protocol = _protocol(connection)
        protocol.set_response_params(read_until_eof=True)
        if protocol.transport is None:
            raise ConnectionResetError("closed by the server")
        protocol.transport.write(b"%b%d\r\n\r\n%b" % (head, len(data), data))
        timer = asyncio.get_running_loop().call_at(self._begin(deadline), _give_up, protocol)
        try:
            message, payload = await protocol.read()
            while message.code < 200:  # 100 Continue, 102 Processing: not the answer yet
                message, payload = await protocol.read()
        except ServerTimeoutError as error:
            raise self._late_to_begin() from error
        finally:
            timer.cancel()
        return message, payload

    async def _rest(self, connection: Connection, payload: StreamReader, deadline: float) -> bytes:
        """A body that did not come with its head."""
        data = bytearray()

        def keep(piece: bytes) -> bool:
            data.extend(piece)
            return True

        await self._pieces(connection, payload, deadline, keep)
        return bytes(data)

    async def _events(
        self, connection: Connection, payload: StreamReader, deadline: float, take: Callable[[bytes], bool]
    ) -> None:
        parser = EventParser()

        def give(piece: bytes) -> bool:
            return sum(take(event) for event in parser.feed(piece)) > 0

        await self._pieces(connection, payload, deadline, give)
        for event in parser.rest():
            take(event)

    async def _pieces(
        self, connection: Connection, payload: StreamReader, deadline: float, keep: Callable[[bytes], bool]
    ) -> None:
        """All of a body. It has begun when `keep` says so: what only keeps a connection alive stops no clock."""
        protocol, size, begun = _protocol(connection), 0, False
        try:
            async with asyncio.timeout_at(self._begin(deadline)) as clock:
                while piece := await payload.readany():
                    size += len(piece)
                    if size > LARGEST_REPLY:
                        message = f"{self.url} answered with more than {LARGEST_REPLY >> 20} MiB"
                        raise Withheld(message, "Lower max_tokens, or embed fewer texts at once.")
                    if keep(piece) and not begun:
                        begun = True
                        clock.reschedule(deadline)
                        _silence(protocol, self.patience.idle)
        except ServerTimeoutError as error:
            raise self._late("go on with its answer", "idle_timeout", self.patience.idle or 0) from error
        except TimeoutError as error:
            raise (self._late("answer", "timeout", self.patience.total) if begun else self._late_to_begin()) from error

    def _begin(self, deadline: float) -> float:
        """When an answer must have begun that must be through by the deadline."""
        first, total = self.patience.first, self.patience.total
        return deadline if first is None or first >= total else deadline - total + first

    def _late_to_begin(self) -> Unanswered:
        first, total = self.patience.first, self.patience.total
        if first is None or first >= total:
            return self._late("answer", "timeout", total)
        return self._late("begin its answer", "first_token_timeout", first)

    def _late(self, what: str, clock: str, seconds: float) -> Unanswered:
        message = f"{self.url} did not {what} within {seconds:g} s"
        return Unanswered(message, f"Raise the model's `{clock}`.", charged=True)

    def _broken(self, error: Exception, *, charged: bool = True) -> Unanswered:
        what = str(error) or type(error).__name__
        return Unanswered(f"the connection to {self.url} broke: {what}", charged=charged)

    def _head(self, method: str, path: str, content_type: str) -> bytes:
        """A request up to the number of its bytes; made once."""
        base = self._base
        headers = {"Host": base.host_port_subcomponent, "User-Agent": "gristmill", "Accept": "*/*"}
        headers |= self.headers() | {"Content-Type": content_type}
        lines = [f"{method} {base.raw_path.rstrip('/')}{path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        if len(self._heads) >= KEPT_HEADS:  # paths with ids in them
            self._heads.clear()
        head = self._heads[method, path, content_type] = "\r\n".join([*lines, "Content-Length: "]).encode("latin-1")
        return head

    def _another_key(self, sent: dict[str, str]) -> bool:
        """Whether there is another key by now. A file that is being written may hold none for a moment."""
        try:
            return self._read_key() != sent
        except ConfigError as error:
            message = f"{self.url} refuses the key, and no other can be read: {error.message}"
            raise Unanswered(message, error.hint, status=401) from error

    def _read_key(self) -> dict[str, str]:
        """The headers, with the key as it is now."""
        found = {"Content-Type": "application/json", **self._more}
        if self._named_key is not None:
            found |= self._auth(resolve(self._named_key))
        for name, value in found.items():
            if _NO_HEADER.search(value) or not value.isascii():
                raise ConfigError(f"the header {name} holds characters that no header may hold", "Look at its value.")
        if found != self._headers:
            self._headers = found
            self._heads.clear()
        return found


def _protocol(connection: Connection) -> ResponseHandler:
    if connection.protocol is None:
        raise ConnectionResetError("closed by the server")
    return connection.protocol


def _give_up(protocol: ResponseHandler) -> None:
    """Whoever waits for the head of an answer hears that it is late; the connection is not used again."""
    protocol.set_exception(ServerTimeoutError())


def _silence(protocol: ResponseHandler, seconds: float | None) -> None:
    """From now on, at most so many seconds without a byte."""
    protocol.read_timeout = seconds
    protocol.start_timeout()


def _lasting(address: AddrInfoType) -> socket.socket:
    """A socket whose silence is looked into by the kernel: a model may think for minutes without a word."""
    made = socket.socket(*address[:3])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE_SECONDS)
    return made
