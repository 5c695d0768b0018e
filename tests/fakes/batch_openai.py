"""A fake of OpenAI's batch interface: files, batches, output and error files, in their wire formats.

Sources: platform.openai.com/docs/guides/batch and /docs/api-reference/{batch,files}.

    python -m tests.fakes.batch_openai --port 0
"""

from __future__ import annotations

import json
import time
from typing import Any

from aiohttp import web
from tests.fakes.batch import Order, Shop, run, said, tokens

ENDPOINTS = {"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/moderations"}
Handler = Any


class Fake(Shop):
    def reset(self, options: dict[str, Any]) -> None:
        super().reset(options)
        self.files: dict[str, bytes] = {}

    def guarded(self, name: str, handler: Handler) -> Handler:
        """Counts the call, asks for the key, and fails where it is to fail."""

        async def handle(request: web.Request) -> web.StreamResponse:
            self.calls[name] += 1
            key = self.options["api_key"]
            if key and request.headers.get("Authorization") != f"Bearer {key}":
                return self._error(401, "Incorrect API key provided.", "invalid_api_key")
            if status := self.fault(name):
                return self._error(status, "Not now.", "rate_limit_exceeded" if status == 429 else "server_error")
            response: web.StreamResponse = await handler(request)
            self.statuses[str(response.status)] += 1
            return response

        return handle

    def _error(self, status: int, message: str, code: str) -> web.Response:
        self.statuses[str(status)] += 1
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
        return web.json_response(body, status=status, headers={"Retry-After": "0.1"} if status == 429 else None)

    async def upload(self, request: web.Request) -> web.Response:
        if request.content_length is None:
            return self._error(411, "A length is required.", "length_required")
        form = await request.post()
        if form.get("purpose") != "batch" or not isinstance(form.get("file"), web.FileField):
            return self._error(400, "'purpose' and 'file' are required.", "missing_required_parameter")
        raw = form["file"].file.read()  # type: ignore[union-attr]
        id = f"file-{len(self.files) + 1:06d}"
        self.files[id] = raw
        about = {"id": id, "object": "file", "bytes": len(raw), "created_at": int(time.time()), "purpose": "batch"}
        return web.json_response(about | {"filename": form["file"].filename})  # type: ignore[union-attr]

    async def content(self, request: web.Request) -> web.StreamResponse:
        raw = self.files.get(request.match_info["id"])
        if raw is None:
            return self._error(404, "No such File object", "not_found")
        return await self.send_lines(request, raw.splitlines())

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        raw = self.files.get(body.get("input_file_id"))
        if raw is None or body.get("endpoint") not in ENDPOINTS or body.get("completion_window") != "24h":
            return self._error(400, "Invalid batch request.", "invalid_request")
        metadata = body.get("metadata") or {}
        assert len(metadata) <= 16 and all(len(k) <= 64 and len(v) <= 512 for k, v in metadata.items())
        lines, failed = _read(raw, body["endpoint"])
        asked = {name: body[name] for name in ("endpoint", "input_file_id", "completion_window")}
        order = await self.order("batch_", lines, **asked, metadata=metadata)
        if order is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        order.failed = order.failed or failed
        return web.json_response(self._batch(order))

    async def retrieve(self, request: web.Request) -> web.Response:
        order = self.orders.get(request.match_info["id"])
        if order is None or self.options["gone"]:
            return self._error(404, f"No batch found with id '{request.match_info['id']}'.", "not_found")
        return web.json_response(self._batch(order))

    async def cancel(self, request: web.Request) -> web.Response:
        order = self.orders[request.match_info["id"]]
        order.cancelled = order.cancelled or time.time()
        return web.json_response(self._batch(order))

    async def list(self, request: web.Request) -> web.Response:
        orders, limit = self.listed(), int(request.query.get("limit", 20))
        assert 1 <= limit <= 100
        if self.options["gone"]:
            orders = []
        if after := request.query.get("after"):
            orders = orders[[order.id for order in orders].index(after) + 1 :]
        page = [self._batch(order) for order in orders[:limit]]
        ends = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return web.json_response({"object": "list", "data": page, "has_more": len(orders) > limit, **ends})

    def _batch(self, order: Order) -> dict[str, Any]:
        outcomes, ended, now = self.settle(order), self.ended(order), int(time.time())
        made = int(order.made)
        good = [_line(self, *outcome) for outcome in outcomes if outcome[1] in ("answered", "withheld")]
        bad = [_line(self, *outcome) for outcome in outcomes if outcome[1] in _ERRORS]
        body: dict[str, Any] = {
            "id": order.id, "object": "batch", "errors": None, "status": "in_progress", "output_file_id": None,
            "error_file_id": None, "created_at": made, "in_progress_at": made, "expires_at": made + 86_400,
            "finalizing_at": None, "completed_at": None, "failed_at": None, "expired_at": None, "cancelling_at": None,
            "cancelled_at": None,
            "request_counts": {"total": len(order.lines), "completed": len(good), "failed": len(bad)}, **order.about,
        }  # fmt: skip
        if order.failed:
            line = self.options["bad_line"] or None
            error = {"code": order.failed, "message": f"It failed: {order.failed}.", "param": None, "line": line}
            return body | {"status": "failed", "failed_at": now, "errors": {"object": "list", "data": [error]}}
        if not ended:
            return body
        status = "cancelled" if order.cancelled else "expired" if order.expires else "completed"
        for name, lines in (("output_file_id", good), ("error_file_id", bad)):
            if lines:
                body[name] = f"{name}-{order.id}"
                self.files[body[name]] = b"\n".join(lines) + b"\n"
        return body | {"status": status, f"{status}_at": now}


_ERRORS = {"refused": 400, "broken": 500, "expired": 0, "canceled": 0}


def _line(fake: Fake, name: str, kind: str, body: dict[str, Any]) -> bytes:
    line: dict[str, Any] = {"id": f"batch_req_{name[-8:]}", "custom_id": name, "response": None, "error": None}
    if kind in ("expired", "canceled"):
        message = "This request could not be executed before the completion window expired."
        line["error"] = {"code": "batch_expired" if kind == "expired" else "batch_cancelled", "message": message}
    else:
        answer = _answer(fake, kind, body) if kind in ("answered", "withheld") else _complaint(kind)
        line["response"] = {"status_code": _ERRORS.get(kind, 200), "request_id": f"req_{name[-8:]}", "body": answer}
    return json.dumps(line).encode()


def _complaint(kind: str) -> dict[str, Any]:
    if kind == "refused":
        message = "This model's maximum context length is 2048 tokens."
        return {
            "error": {
                "message": message,
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
        }
    return {"error": {"message": "The server had an error.", "type": "server_error", "param": None, "code": None}}


def _answer(fake: Fake, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    reply: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion", "model": body["model"]}
    if "input" in body:
        rows = [{"index": n, "embedding": [float(len(text)), 1.0]} for n, text in enumerate(body["input"])]
        return reply | {"data": rows, "usage": {"prompt_tokens": 7, "total_tokens": 7}}
    text = said(body)
    finish = "content_filter" if kind == "withheld" else "stop"
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    reply["choices"] = [choice]
    if not fake.options["no_usage"]:
        reply["usage"] = {"prompt_tokens": tokens(json.dumps(body)), "completion_tokens": tokens(text)}
    return reply


def _read(raw: bytes, endpoint: str) -> tuple[list[tuple[str, dict[str, Any]]], str]:
    """The lines of an input file, and the code of what is wrong with it."""
    lines, names = [], set()
    for line in raw.splitlines():
        try:
            item = json.loads(line)
        except ValueError:
            return lines, "invalid_json_line"
        if item["url"] != endpoint or item["method"] != "POST":
            return lines, "mismatched_url"
        if item["custom_id"] in names:
            return lines, "duplicate_custom_id"
        names.add(item["custom_id"])
        lines.append((item["custom_id"], item["body"]))
    return lines, "" if lines else "empty_file"


def application(fake: Fake) -> web.Application:
    app = web.Application(client_max_size=256 << 20)
    app.add_routes([
        web.post("/v1/files", fake.guarded("upload", fake.upload)),
        web.get("/v1/files/{id}/content", fake.guarded("content", fake.content)),
        web.post("/v1/batches", fake.guarded("create", fake.create)),
        web.get("/v1/batches", fake.guarded("list", fake.list)),
        web.get("/v1/batches/{id}", fake.guarded("retrieve", fake.retrieve)),
        web.post("/v1/batches/{id}/cancel", fake.guarded("cancel", fake.cancel)),
    ])  # fmt: skip
    return app


if __name__ == "__main__":
    served = Fake()
    run(served, application(served))
