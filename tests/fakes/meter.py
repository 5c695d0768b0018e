"""A model that bills: it counts what every request costs the moment it arrives, as a provider does whose client dies.

    python tests/fakes/meter.py          first line of output: {"url": ...}; ends with its standard input

Input is a quarter of the prompt's bytes; output a share of `max_tokens` that is a hash of the prompt. `/stats`: calls,
and tokens in and out, all told; `/options` sets latency_ms, the share of requests that get a 500 (not billed) or hang
(billed), and whether answers carry usage.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import threading
from typing import Any

from aiohttp import web

OPTIONS: dict[str, Any] = {"latency_ms": 5, "p500": 0.0, "phang": 0.0, "usage": True}
BILL = {"calls": 0, "tokens_in": 0, "tokens_out": 0}


async def answer(request: web.Request) -> web.Response:
    body = await request.json()
    text = body["messages"][-1]["content"]
    BILL["attempts"] = BILL.get("attempts", 0) + 1
    roll = _share(f"{text} {BILL['attempts']}")
    if roll < OPTIONS["p500"]:
        return web.json_response({"error": {"message": "The server had an error."}}, status=500)
    usage = {"prompt_tokens": len(text.encode()) // 4, "completion_tokens": int(_share(text) * body["max_tokens"])}
    BILL["calls"] += 1
    BILL["tokens_in"] += usage["prompt_tokens"]
    BILL["tokens_out"] += usage["completion_tokens"]
    await asyncio.sleep(3600 if roll < OPTIONS["p500"] + OPTIONS["phang"] else OPTIONS["latency_ms"] / 1000)
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"About {text[:20]}."}}
    return web.json_response({"choices": [choice], **({"usage": usage} if OPTIONS["usage"] else {})})


def _share(text: str) -> float:
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


async def stats(_: web.Request) -> web.Response:
    return web.json_response(BILL)


async def options(request: web.Request) -> web.Response:
    OPTIONS.update(await request.json())
    BILL.update(calls=0, tokens_in=0, tokens_out=0)
    return web.json_response({})


async def serve() -> None:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    app.add_routes([web.get("/stats", stats), web.post("/options", options)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=2048).start()
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{runner.addresses[0][1]}/v1"}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def _end_with_input() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    asyncio.run(serve())
