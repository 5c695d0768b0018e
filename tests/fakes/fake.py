"""What every fake API shares: counts, faults, limits and the way an answer goes over the wire.

Every answer is a pure function of the request: whoever asks the same twice gets the same twice, after a kill too.
Faults are a pure function of seed, request and how often that request came before.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from argparse import Namespace
from collections import Counter
from email.utils import formatdate
from typing import Any, Protocol

from aiohttp import web

FAULTS = ("429", "500", "hang", "badjson", "drop")


class Api(Protocol):
    """One provider's wire format."""

    key_header: str

    def key_of(self, request: web.Request) -> str:
        """The key that a request shows."""
        ...

    def error(self, status: int, message: str, *, kind: str = "", param: str = "") -> dict[str, Any]:
        """The body of an error. `kind` is a code or type that the status alone does not tell."""
        ...

    def complaint(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """What is wrong with a request: status and body."""
        ...

    def answer(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any]: ...

    def events(self, path: str, body: dict[str, Any], answer: dict[str, Any]) -> list[bytes]:
        """The answer as server-sent events."""
        ...

    def limit_headers(self, quota: Quota) -> dict[str, str]: ...


class Quota:
    """What is left of a minute's requests, in the fake's own clock."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.began = time.monotonic()
        self.used = 0

    @property
    def left(self) -> int:
        return max(0, self.limit - self.used)

    @property
    def reset(self) -> float:
        return max(0.0, self.began + 60 - time.monotonic())

    def take(self) -> bool:
        if self.reset == 0:
            self.began, self.used = time.monotonic(), 0
        self.used += 1
        return self.used <= self.limit


class Fake:
    """The counts and the options of one server, whatever APIs are mounted on it."""

    def __init__(self, options: Namespace) -> None:
        self.options = options
        self.reset()

    def reset(self) -> None:
        self.attempts: Counter[str] = Counter()  # by request hash
        self.answered: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.in_flight = self.most = self.torn = 0
        self.quota = Quota(self.options.rpm) if self.options.rpm else None

    def stats(self) -> dict[str, Any]:
        return {
            "attempts": dict(self.attempts),
            "answered": dict(self.answered),
            "statuses": dict(self.statuses),
            "calls": sum(self.attempts.values()),
            "max_in_flight": self.most,
            "torn": self.torn,
        }

    async def handle(self, request: web.Request, api: Api) -> web.StreamResponse:
        """One request: counted, refused or answered."""
        raw = await request.read()
        key = hashlib.sha256(request.path.encode() + raw).hexdigest()
        attempt = self.attempts[key]
        self.attempts[key] += 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            fault = self._fault(key, attempt)
            status, body, headers = await self._outcome(request, api, raw, key, fault)
        finally:
            self.in_flight -= 1
        self.statuses[str(status)] += 1
        if status == 200:
            self.answered[key] += 1
            self.torn += fault in ("badjson", "drop")
        data = json.dumps(body).encode()
        if fault == "drop" and status == 200:
            return await self._half(request, data)
        sent = json.loads(raw) if status == 200 else {}
        if sent.get("stream") and "error" not in body:
            return await self._stream(request, api.events(request.path, sent, body), headers)
        data = data[: len(data) // 2] if fault == "badjson" and status == 200 else data
        return web.Response(status=status, body=data, headers=headers, content_type="application/json")

    async def _outcome(
        self, request: web.Request, api: Api, raw: bytes, key: str, fault: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        options, text = self.options, raw.decode(errors="replace")
        if options.api_key and api.key_of(request) != options.api_key:
            message = f"Incorrect API key provided: {api.key_of(request)}."
            return 401, api.error(401, message, kind="invalid_api_key"), {}
        if options.broke:
            message = "You exceeded your current quota, please check your plan and billing details."
            return 429, api.error(429, message, kind="insufficient_quota"), {}
        if fault == "429" or (self.quota is not None and not self.quota.take()):
            return 429, api.error(429, "Rate limit reached."), self._limits(api) | self._wait()
        if fault == "hang":
            await asyncio.sleep(options.hang_s)
        if options.latency_ms:
            await asyncio.sleep(options.latency_ms / 1000)
        if fault == "500" or (options.poison and options.poison in text):
            return 500, api.error(500, "The server had an error."), {}
        if options.status:
            return options.status, api.error(options.status, options.words), self._wait()
        try:
            body = json.loads(raw)
        except ValueError:
            return 400, api.error(400, "The body is not JSON."), {}
        if options.refuse and options.refuse in text:
            message = "This model's maximum context length is 2048 tokens."
            return 400, api.error(400, message, kind="context_length_exceeded", param="messages"), {}
        if wrong := api.complaint(request.path, body):
            return *wrong, {}
        return 200, api.answer(request.path, body, key), {"x-request-id": f"req_{key[:8]}", **self._limits(api)}

    def _fault(self, key: str, attempt: int) -> str:
        roll = random.Random(f"{self.options.seed}:{key}:{attempt}").random()
        for name in FAULTS:
            roll -= getattr(self.options, f"p{name}")
            if roll < 0:
                return name
        return ""

    def _limits(self, api: Api) -> dict[str, str]:
        return api.limit_headers(self.quota) if self.quota is not None else {}

    def _wait(self) -> dict[str, str]:
        """How a refusal says when to come back."""
        seconds, form = self.options.retry_after, self.options.wait_form
        forms = {
            "seconds": {"Retry-After": str(seconds)},
            "date": {"Retry-After": formatdate(time.time() + seconds, usegmt=True)},
            "ms": {"retry-after-ms": str(round(seconds * 1000))},
            "reset": {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": f"{round(seconds * 1000)}ms",
            },
            "none": {},
        }
        return forms[form]

    async def _half(self, request: web.Request, data: bytes) -> web.StreamResponse:
        """The first half of a body, and then nothing: the connection is gone."""
        response = web.StreamResponse(headers={"Content-Length": str(len(data)), "Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        if request.transport is not None:
            request.transport.close()
        return response

    async def _stream(self, request: web.Request, events: list[bytes], headers: dict[str, str]) -> web.StreamResponse:
        """Events as they would come from a model: comments while it waits, pieces that end anywhere."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **headers})
        await response.prepare(request)
        data = b": processing\n\n" + b"".join(events)
        cut = self.options.cut_stream
        data = data[: int(len(data) * (1 - cut))]
        step = max(1, len(data) // 7)
        for at in range(0, len(data), step):
            await response.write(data[at : at + step])
            if self.options.piece_ms:
                await asyncio.sleep(self.options.piece_ms / 1000)
        return response
