"""A deterministic server that speaks the wire formats of OpenAI and Anthropic, over real HTTP in its own process.

It counts what it did (`/stats`), takes new options while it runs (`/reset`), and dies with the process that started it
(its standard input closes) or after a longest life.

    python -m tests.fakes.server --port 0 --latency-ms 50 --p429 0.1

An API is a module with `mount(app, fake)`: it adds its routes, and leaves counts, faults and limits to
`fake.handle(request, api)`. To add one, name its module in APIS; its options go into `options_of`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import threading
import time

from aiohttp import web
from tests.fakes import anthropic_api, openai_api
from tests.fakes.fake import Fake

APIS = (openai_api, anthropic_api)


def application(fake: Fake) -> web.Application:
    started_with = vars(fake.options).copy()

    async def stats(_: web.Request) -> web.Response:
        return web.json_response(fake.stats())

    async def fresh(request: web.Request) -> web.Response:
        """As it was started, but for the options in the body."""
        vars(fake.options).update(started_with)
        return await reset(request)

    async def reset(request: web.Request) -> web.Response:
        """Forget the counts; options in the body take effect."""
        for name, value in (await request.json() if request.can_read_body else {}).items():
            if not hasattr(fake.options, name):
                return web.json_response({"error": f"no option {name}"}, status=400)
            setattr(fake.options, name, value)
        fake.reset()
        return web.json_response({})

    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.get("/stats", stats), web.post("/reset", reset), web.post("/fresh", fresh)])
    for api in APIS:
        api.mount(app, fake)
    return app


def options_of(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lifetime-s", type=float, default=900)
    parser.add_argument("--api-key", default="", help="the only key that is served")
    parser.add_argument("--model", default="", help="the only model that is known")
    _faults(parser)
    _answers(parser)
    _abilities(parser)
    return parser.parse_args(argv)


def _faults(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--p429", type=float, default=0)
    parser.add_argument("--p500", type=float, default=0)
    parser.add_argument("--phang", type=float, default=0)
    parser.add_argument("--pbadjson", type=float, default=0)
    parser.add_argument("--pdrop", type=float, default=0, help="share of answers cut off in the middle of their body")
    parser.add_argument("--hang-s", type=float, default=3600)
    parser.add_argument("--retry-after", type=float, default=0.2, help="seconds")
    parser.add_argument("--wait-form", choices=("seconds", "date", "ms", "reset", "none"), default="seconds")
    parser.add_argument("--rpm", type=int, default=0, help="requests a minute; beyond them 429")
    parser.add_argument("--poison", default="", help="requests that hold this text always get 500")
    parser.add_argument("--refuse", default="", help="requests that hold this text always get 400")
    parser.add_argument("--status", type=int, default=0, help="status of every answer")
    parser.add_argument("--words", default="Something is wrong.", help="what it says beside --status")
    parser.add_argument("--hidden", type=int, default=0, help="every answer is a 200 that holds this error")
    parser.add_argument("--broke", action="store_true", help="the account's quota is used up (429)")
    parser.add_argument("--poor", action="store_true", help="the account has no credit (400, Anthropic)")
    parser.add_argument("--cut-stream", type=float, default=0, help="share of every stream that is left out")
    parser.add_argument("--stream-error", action="store_true", help="streams end in an error (Anthropic)")
    parser.add_argument("--piece-ms", type=float, default=0, help="between the pieces of a stream")


def _answers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plength", type=float, default=0, help="share of requests answered with finish_reason=length")
    parser.add_argument("--pinvalid", type=float, default=0, help="share of requests answered against their schema")
    parser.add_argument("--bad-until-turns", type=int, default=2, help="longer conversations get no bad answers")
    parser.add_argument("--finish", default="", help="finish_reason of every answer")
    parser.add_argument("--filter", default="", help="prompts whose answers are filtered")
    parser.add_argument("--blocked", default="", help="prompts that are filtered (400)")
    parser.add_argument("--deny", default="", help="prompts that the model refuses")
    parser.add_argument("--mute", default="", help="prompts that get an empty answer")
    parser.add_argument("--no-usage", action="store_true")
    parser.add_argument("--max-tokens-bind", action="store_true", help="cut answers at max_tokens words")
    parser.add_argument("--think", default="", help="reasoning_content | reasoning | tags | closed")
    parser.add_argument("--cached", type=float, default=0, help="share of the input that the cache serves")
    parser.add_argument("--logprobs", choices=("content", "lists"), default="content")


def _abilities(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--context", type=int, default=0, help="tokens of prompt and answer together")
    parser.add_argument("--refuses", default="", help="parameters it does not take, with commas")
    parser.add_argument("--json-modes", default="json_schema,json_object,tool")
    parser.add_argument("--no-bounds", action="store_true", help="schemas with maxLength or minLength are refused")
    parser.add_argument("--ignores-json", action="store_true", help="takes any demand for JSON and answers in prose")
    parser.add_argument("--style", choices=("openai", "fastapi"), default="openai", help="how errors look")


def _die_with_parent(lifetime: float) -> None:
    def watch_input() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    def watch_clock() -> None:
        time.sleep(lifetime)
        os._exit(0)

    threading.Thread(target=watch_input, daemon=True).start()
    threading.Thread(target=watch_clock, daemon=True).start()


async def serve(options: argparse.Namespace) -> None:
    runner = web.AppRunner(application(Fake(options)), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port, backlog=2048)
    await site.start()
    port = runner.addresses[0][1]
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{port}/v1"}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    chosen = options_of(sys.argv[1:])
    _die_with_parent(chosen.lifetime_s)
    asyncio.run(serve(chosen))
