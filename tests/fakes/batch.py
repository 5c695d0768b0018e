"""What the two fake batch servers share: batches that take their time, lines that fail as told, and the bill.

Answers are a pure function of the body, faults of seed, body and how often that body came before. The bill counts, by
body, how often it was answered: that is what a provider would charge for. Each server is a process of its own, which
dies with the one that started it.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

OPTIONS: dict[str, Any] = {
    "seed": 1,
    "seconds": 0.1,  # how long a batch takes
    "p429": 0.0,  # of all calls
    "p500": 0.0,
    "lost_replies": 0,  # so many next batches are taken, and the reply to the hand-in is lost
    "taking_s": 0.0,  # between the hand-in and the moment at which the batch exists
    "reply_s": 0.0,  # between that and the reply
    "list_lag_s": 0.0,  # before a batch is listed
    "list_status": 0,  # what listing fails with
    "expiring": 0,  # so many next batches end before their lines do
    "expired": 0.5,  # share of their lines that are not done by then
    "refuse": "",  # lines that hold this text are bad requests
    "flaky": 0.0,  # share of lines that fail the first time they come
    "withhold": "",  # lines that hold this text get an answer that is none
    "fail": "",  # code with which batches fail as a whole
    "failing": 0,  # so many of them
    "bad_line": 0,  # and on which line
    "most": 0,  # lines that the account may have under way
    "duplicates": 0.0,  # share of result lines that come twice
    "missing": 0.0,  # share of result lines that are left out the first time
    "breaks": 0,  # so many next result files break off half way
    "ruined": [],  # how the first lines of the next result file are no results: see `_ruined`
    "line_ms": 0.0,  # between two result lines
    "gone": False,  # batches are forgotten
    "api_key": "",
    "no_usage": False,
}  # fmt: skip


@dataclass
class Order:
    """One batch. `lines` are (custom id, body)."""

    id: str
    lines: list[tuple[str, dict[str, Any]]]
    made: float
    about: dict[str, Any] = field(default_factory=dict)
    expires: bool = False
    cancelled: float | None = None
    failed: str = ""
    outcomes: list[tuple[str, str, dict[str, Any]]] | None = None  # custom id, kind, body


class Shop:
    def __init__(self) -> None:
        self.options = dict(OPTIONS)
        self.reset({})

    def reset(self, options: dict[str, Any]) -> None:
        assert options.keys() <= OPTIONS.keys(), options
        self.options = OPTIONS | options
        self.orders: dict[str, Order] = {}
        self.billed: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self._roll = itertools.count()

    def stats(self) -> dict[str, Any]:
        for order in self.orders.values():
            self.settle(order)
        return {
            "billed": dict(self.billed),
            "batches": {order.id: len(order.lines) for order in self.orders.values()},
            "calls": dict(self.calls),
            "statuses": dict(self.statuses),
        }

    def fault(self, name: str) -> int:
        """A status other than 200 for this call, if it is to fail."""
        if name == "list" and self.options["list_status"]:
            return int(self.options["list_status"])
        roll = random.Random(f"{self.options['seed']}:{next(self._roll)}").random()
        if roll < self.options["p429"]:
            return 429
        return 500 if roll < self.options["p429"] + self.options["p500"] else 0

    def take(self, name: str) -> bool:
        """Whether one more of so many is due."""
        if self.options[name] <= 0:
            return False
        self.options[name] -= 1
        return True

    async def order(self, prefix: str, lines: list[tuple[str, dict[str, Any]]], **about: Any) -> Order | None:
        """A batch, made now; None if its reply is to be lost."""
        await asyncio.sleep(self.options["taking_s"])
        lost = self.take("lost_replies")
        order = Order(f"{prefix}{len(self.orders) + 1:06d}", lines, time.time(), about)
        under_way = sum(len(other.lines) for other in self.orders.values() if not self.ended(other))
        if self.options["most"] and under_way + len(lines) > self.options["most"]:
            order.failed = "token_limit_exceeded"
        elif self.take("failing"):
            order.failed = self.options["fail"]
        order.expires = not order.failed and self.take("expiring")
        self.orders[order.id] = order
        await asyncio.sleep(self.options["reply_s"])
        return None if lost else order

    def ended(self, order: Order) -> bool:
        return bool(order.failed or order.cancelled) or time.time() - order.made >= self.options["seconds"]

    def listed(self) -> list[Order]:
        """Newest first."""
        seen = [order for order in self.orders.values() if time.time() - order.made >= self.options["list_lag_s"]]
        return seen[::-1]

    def settle(self, order: Order) -> list[tuple[str, str, dict[str, Any]]]:
        """What became of its lines, once it has ended; billed when it is first looked at."""
        if order.outcomes is None and self.ended(order):
            lines = [] if order.failed else order.lines
            order.outcomes = [(name, *self._outcome(order, number, body)) for number, (name, body) in enumerate(lines)]
            random.Random(order.id).shuffle(order.outcomes)
        return order.outcomes or []

    def _outcome(self, order: Order, number: int, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        key = body_hash(body)
        self.seen[key] += 1
        text = json.dumps(body, ensure_ascii=False)
        luck = random.Random(f"{self.options['seed']}:{key}:{self.seen[key]}").random()
        if (order.cancelled or order.expires) and number >= len(order.lines) * (1 - self.options["expired"]):
            return "canceled" if order.cancelled else "expired", body
        if self.options["refuse"] and self.options["refuse"] in text:
            return "refused", body
        if self.seen[key] == 1 and luck < self.options["flaky"]:
            return "broken", body
        self.billed[key] += 1
        if self.options["withhold"] and self.options["withhold"] in text:
            return "withheld", body
        if self.seen[key] == 1 and luck > 1 - self.options["missing"]:
            return "missing", body
        return "answered", body

    async def send_lines(self, request: web.Request, lines: list[bytes]) -> web.StreamResponse:
        """A results file, as slow, as doubled and as broken as told."""
        ruined, self.options["ruined"] = self.options["ruined"], []
        lines = [_ruined(line, how) for line, how in zip(lines, ruined, strict=False)] + lines[len(ruined) :]
        doubled = random.Random(len(lines))
        lines = [
            line for one in lines for line in ([one, one] if doubled.random() < self.options["duplicates"] else [one])
        ]
        response = web.StreamResponse(headers={"Content-Type": "application/x-jsonl"})
        response.content_length = sum(len(line) + 1 for line in lines)
        await response.prepare(request)
        breaks = self.take("breaks")
        for number, line in enumerate(lines):
            if breaks and number >= len(lines) // 2:
                await response.write(line[: len(line) // 2])
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(line + b"\n")
            if self.options["line_ms"]:
                await asyncio.sleep(self.options["line_ms"] / 1000)
        return response


@dataclass(frozen=True)
class BatchServer:
    provider: str
    url: str  # ends in /v1

    def stats(self) -> dict[str, Any]:
        """billed by body, lines by batch, calls by name, statuses."""
        return self._ask("/stats")

    def reset(self, **options: Any) -> None:
        """Forget everything; these options, and else those that let all go well."""
        self._ask("/reset", json.dumps(options).encode())

    def tune(self, **options: Any) -> None:
        """These options from now on; nothing is forgotten."""
        self._ask("/tune", json.dumps(options).encode())

    def cancel(self, id: str) -> None:
        """As its owner would in the provider's console."""
        self._ask("/cancel", json.dumps(id).encode())

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + path, body, timeout=20) as reply:
            return json.load(reply)


@contextmanager
def batch_server(provider: str) -> Iterator[BatchServer]:
    """A fake server in its own process for as long as the block runs."""
    command = [sys.executable, "-m", f"tests.fakes.batch_{provider}"]
    project = Path(__file__).parents[2]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=project)
    try:
        assert process.stdout is not None
        yield BatchServer(provider, json.loads(process.stdout.readline())["url"])
    finally:
        process.kill()
        process.communicate()


def _ruined(line: bytes, how: str) -> bytes:
    """Without its name, its status or its answer; or something else altogether."""
    item = json.loads(line)
    inside = item.get("response") or item["result"]
    if how == "name":
        del item["custom_id"]
    elif how == "status":
        del inside["status_code" if "status_code" in inside else "type"]
    elif how == "answer":
        inside["body" if "body" in inside else "message"] = 7
    else:
        return how.encode()
    return json.dumps(item).encode()


def body_hash(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def said(body: dict[str, Any]) -> str:
    """The answer to a chat: whoever gets it can tell whose it is."""
    content = body["messages"][-1]["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    return f"You said: {text}"


def tokens(text: str) -> int:
    return len(text.encode()) // 4 + 1


def run(shop: Shop, app: web.Application) -> None:
    """Serve on a free port until standard input closes, or a longest life is over."""

    async def stats(_: web.Request) -> web.Response:
        return web.json_response(shop.stats())

    async def reset(request: web.Request) -> web.Response:
        shop.reset(await request.json())
        return web.json_response({})

    async def tune(request: web.Request) -> web.Response:
        """Options for what comes now; nothing is forgotten."""
        shop.options |= await request.json()
        return web.json_response({})

    async def cancel(request: web.Request) -> web.Response:
        order = shop.orders[await request.json()]
        order.cancelled = order.cancelled or time.time()
        return web.json_response({})

    app.add_routes([
        web.get("/stats", stats), web.post("/reset", reset), web.post("/tune", tune), web.post("/cancel", cancel),
    ])  # fmt: skip
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--lifetime-s", type=float, default=900)
    chosen = parser.parse_args()
    threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
    threading.Thread(target=lambda: (time.sleep(chosen.lifetime_s), os._exit(0)), daemon=True).start()
    asyncio.run(_serve(app, chosen.port))


async def _serve(app: web.Application, port: int) -> None:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}/v1"}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()
