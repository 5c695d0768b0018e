"""A fake of Anthropic's message batches: create, retrieve, list, cancel and results, in their wire formats.

Source: platform.claude.com/docs/en/api/messages/batches and /docs/en/build-with-claude/batch-processing.

    python -m tests.fakes.batch_anthropic --port 0
"""

from __future__ import annotations

import json
import re
import time
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from tests.fakes.batch import Order, Shop, run, said, tokens

_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
Handler = Any


class Fake(Shop):
    def guarded(self, name: str, handler: Handler) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.calls[name] += 1
            assert request.headers["anthropic-version"]
            key = self.options["api_key"]
            if key and request.headers.get("x-api-key") != key:
                return self._error(401, "invalid x-api-key")
            if status := self.fault(name):
                return self._error(status, "Not now.")
            response: web.StreamResponse = await handler(request)
            self.statuses[str(response.status)] += 1
            return response

        return handle

    def _error(self, status: int, message: str) -> web.Response:
        self.statuses[str(status)] += 1
        body = {"type": "error", "error": {"type": _TYPES.get(status, "api_error"), "message": message}}
        return web.json_response(body, status=status, headers={"retry-after": "0.1"} if status == 429 else None)

    async def create(self, request: web.Request) -> web.Response:
        requests = (await request.json()).get("requests", [])
        names = [item["custom_id"] for item in requests]
        if not names or len(set(names)) < len(names) or not all(map(_NAME.match, names)):
            return self._error(400, "requests: custom_id must match ^[a-zA-Z0-9_-]{1,64}$ and be unique")
        if self.options["most"] and len(names) > self.options["most"]:
            return self._error(429, "Too many requests are being processed in batches.")
        order = await self.order("msgbatch_", [(item["custom_id"], item["params"]) for item in requests])
        if order is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.json_response(self._batch(order, request))

    async def retrieve(self, request: web.Request) -> web.Response:
        order = self.orders.get(request.match_info["id"])
        if order is None or self.options["gone"]:
            return self._error(404, "Not found")
        return web.json_response(self._batch(order, request))

    async def cancel(self, request: web.Request) -> web.Response:
        order = self.orders[request.match_info["id"]]
        order.cancelled = order.cancelled or time.time()
        return web.json_response(self._batch(order, request))

    async def list(self, request: web.Request) -> web.Response:
        orders, limit = self.listed(), int(request.query.get("limit", 20))
        assert 1 <= limit <= 1000
        if self.options["gone"]:
            orders = []
        if after := request.query.get("after_id"):
            orders = orders[[order.id for order in orders].index(after) + 1 :]
        page = [self._batch(order, request) for order in orders[:limit]]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return web.json_response({"data": page, "has_more": len(orders) > limit, **ends})

    async def results(self, request: web.Request) -> web.StreamResponse:
        order = self.orders.get(request.match_info["id"])
        if order is None or not self.ended(order):
            return self._error(404, "Not found")
        lines = [_line(*outcome) for outcome in self.settle(order) if outcome[1] != "missing"]
        return await self.send_lines(request, lines)

    def _batch(self, order: Order, request: web.Request) -> dict[str, Any]:
        outcomes, ended = self.settle(order), self.ended(order)
        counts = {name: sum(_KINDS[kind] == name for _, kind, _ in outcomes) for name in _COUNTED}
        made, now = _instant(order.made), _instant(time.time())
        url = f"{request.scheme}://{request.host}/v1/messages/batches/{order.id}/results"
        return {
            "id": order.id, "type": "message_batch", "processing_status": "ended" if ended else "in_progress",
            "request_counts": counts | {"processing": 0 if ended else len(order.lines)}, "created_at": made,
            "ended_at": now if ended else None, "expires_at": _instant(order.made + 86_400), "archived_at": None,
            "cancel_initiated_at": _instant(order.cancelled) if order.cancelled else None,
            "results_url": url if ended else None,
        }  # fmt: skip


_COUNTED = ("succeeded", "errored", "canceled", "expired")
_KINDS = {
    "answered": "succeeded", "withheld": "succeeded", "missing": "succeeded", "refused": "errored",
    "broken": "errored", "canceled": "canceled", "expired": "expired",
}  # fmt: skip


def _line(name: str, kind: str, body: dict[str, Any]) -> bytes:
    result: dict[str, Any] = {"type": _KINDS[kind]}
    if result["type"] == "succeeded":
        text = said(body)
        usage = {"input_tokens": tokens(json.dumps(body)), "output_tokens": tokens(text)}
        result["message"] = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"],
            "content": [{"type": "text", "text": text}], "stop_sequence": None, "usage": usage,
            "stop_reason": "refusal" if kind == "withheld" else "end_turn",
        }  # fmt: skip
    elif result["type"] == "errored":
        refused = {"type": "invalid_request_error", "message": "prompt is too long"}
        error = refused if kind == "refused" else {"type": "api_error", "message": "Internal server error"}
        result["error"] = {"type": "error", "error": error, "request_id": None}
    return json.dumps({"custom_id": name, "result": result}).encode()


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def application(fake: Fake) -> web.Application:
    app = web.Application(client_max_size=300 << 20)
    app.add_routes([
        web.post("/v1/messages/batches", fake.guarded("create", fake.create)),
        web.get("/v1/messages/batches", fake.guarded("list", fake.list)),
        web.get("/v1/messages/batches/{id}", fake.guarded("retrieve", fake.retrieve)),
        web.post("/v1/messages/batches/{id}/cancel", fake.guarded("cancel", fake.cancel)),
        web.get("/v1/messages/batches/{id}/results", fake.guarded("results", fake.results)),
    ])  # fmt: skip
    return app


if __name__ == "__main__":
    served = Fake()
    run(served, application(served))
