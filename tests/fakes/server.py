"""A deterministic OpenAI-compatible server, over real HTTP in a process of its own.

Every answer is a pure function of the request: whoever asks the same twice gets the same twice, after a kill too.
Faults are a pure function of seed, request and how often that request came before. It counts what it did (`/stats`),
and dies with the process that started it (its standard input closes) or after a longest life.

    python tests/fakes/server.py --port 0 --latency-ms 50 --p429 0.1
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
import sys
import threading
import time
from collections import Counter
from typing import Any

from aiohttp import web

_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_SMALL = re.compile(r"sentence|number|index|count|score", re.IGNORECASE)


Outcome = tuple[int, bytes, dict[str, str]]
"""Status, body, headers."""


class Fake:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.reset()

    def reset(self) -> None:
        self.attempts: Counter[str] = Counter()  # by request hash
        self.answered: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.in_flight = self.most = 0

    def stats(self) -> dict[str, Any]:
        return {
            "attempts": dict(self.attempts),
            "answered": dict(self.answered),
            "statuses": dict(self.statuses),
            "calls": sum(self.attempts.values()),
            "max_in_flight": self.most,
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        key = hashlib.sha256(request.path.encode() + raw).hexdigest()
        attempt = self.attempts[key]
        self.attempts[key] += 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            status, body, headers = await self._reply(request, raw, key, attempt)
        finally:
            self.in_flight -= 1
        self.statuses[str(status)] += 1
        if status == 200:
            self.answered[key] += 1
        return web.Response(status=status, body=body, headers=headers, content_type="application/json")

    async def _reply(self, request: web.Request, raw: bytes, key: str, attempt: int) -> Outcome:
        options = self.options
        if options.api_key and request.headers.get("Authorization") != f"Bearer {options.api_key}":
            return 401, _error("Incorrect API key provided."), {}
        fault = self._fault(key, attempt)
        if fault == "429":
            return 429, _error("Rate limit reached."), {"Retry-After": str(options.retry_after)}
        if fault == "hang":
            await asyncio.sleep(options.hang_s)
        if options.latency_ms:
            await asyncio.sleep(options.latency_ms / 1000)
        if fault == "500" or (options.poison and options.poison in raw.decode()):
            return 500, _error("The server had an error."), {}
        try:
            body = json.loads(raw)
        except ValueError:
            return 400, _error("The body is not JSON."), {}
        if options.refuse and options.refuse in raw.decode():
            return 400, _error("This model's maximum context length is 2048 tokens."), {}
        answer = json.dumps(self._answer(request.path, body, key)).encode()
        return 200, answer[: len(answer) // 2] if fault == "badjson" else answer, {}

    def _fault(self, key: str, attempt: int) -> str:
        options = self.options
        roll = random.Random(f"{options.seed}:{key}:{attempt}").random()
        for name in ("429", "500", "hang", "badjson"):
            roll -= getattr(options, f"p{name}")
            if roll < 0:
                return name
        return ""

    def _answer(self, path: str, body: dict[str, Any], key: str) -> dict[str, Any]:
        rng = random.Random(f"{self.options.seed}:{key}")
        if path.endswith("/embeddings"):
            return _embeddings(body)
        chat = path.endswith("/chat/completions")
        prompt = _prompt(body)
        turns = len(body.get("messages", ()))
        unlucky = random.Random(f"{self.options.seed}:bad:{key}").random()
        words = _WORD.findall(prompt)[-200:] or ["nothing"]
        text = self._text(body, words, rng, turns=turns, unlucky=unlucky)
        finish = "stop"
        if unlucky < self.options.plength and turns <= self.options.bad_until_turns:
            text, finish = text[: len(text) // 2], "length"
        if self.options.max_tokens_bind and len(text.split()) > _limit(body):
            text, finish = " ".join(text.split()[: _limit(body)]), "length"
        choice: dict[str, Any] = {"index": 0, "finish_reason": self.options.finish or finish}
        choice |= {"message": {"role": "assistant", "content": text}} if chat else {"text": text, "logprobs": None}
        if not chat and body.get("logprobs"):
            ids = [int(hashlib.sha256(w.encode()).hexdigest()[:4], 16) for w in text.split()]
            choice["logprobs"] = {"content": [{"id": i, "logprob": -(i % 100) / 100} for i in ids]}
        reply: dict[str, Any] = {"id": key[:12], "object": "chat.completion", "model": body.get("model", "fake")}
        reply["choices"] = [choice]
        if not self.options.no_usage:
            counted = len(prompt.encode()) // 4 + 1, len(text.encode()) // 4 + 1
            reply["usage"] = {
                "prompt_tokens": counted[0],
                "completion_tokens": min(counted[1], _limit(body)),
                "total_tokens": sum(counted),
            }
        return reply

    def _text(self, body: dict[str, Any], words: list[str], rng: random.Random, *, turns: int, unlucky: float) -> str:
        schema = _schema(body)
        bad = 1 - unlucky < self.options.pinvalid and turns <= self.options.bad_until_turns
        if bad:
            return "I would rather not." if schema is None else '{"wrong": true}'
        if schema is None:
            line = " ".join(rng.sample(words, min(len(words), rng.randint(4, 9))))
            return f"{line[0].upper()}{line[1:]}."
        return json.dumps(fill(schema, words, rng, ""), ensure_ascii=False)


def fill(schema: dict[str, Any], words: list[str], rng: random.Random, name: str) -> Any:
    """A value that conforms to a schema, made of the prompt's own words."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    for union in ("anyOf", "oneOf", "allOf"):
        if union in schema:
            return fill(schema[union][0], words, rng, name)
    kind = schema.get("type")
    if kind == "object":
        return {key: fill(value, words, rng, key) for key, value in schema.get("properties", {}).items()}
    if kind == "array":
        return _array(schema, words, rng, name)
    if kind == "string":
        return _string(schema, words, rng)
    if kind == "integer":
        low = _bound(schema, "minimum", "exclusiveMinimum", 1, 1)
        high = _bound(schema, "maximum", "exclusiveMaximum", -1, low + (2 if _SMALL.search(name) else 9))
        return rng.randint(low, min(high, low + 2) if _SMALL.search(name) else high)
    if kind == "number":
        low, high = schema.get("minimum", 0), schema.get("maximum", 1)
        return round(rng.uniform(low, high), 3)
    if kind == "boolean":
        return rng.random() < 0.5
    return None


def _bound(schema: dict[str, Any], name: str, exclusive: str, step: int, default: int) -> int:
    if exclusive in schema:
        return int(schema[exclusive]) + step
    return int(schema.get(name, default))


def _array(schema: dict[str, Any], words: list[str], rng: random.Random, name: str) -> list[Any]:
    if "prefixItems" in schema:
        return [fill(item, words, rng, name) for item in schema["prefixItems"]]
    low = schema.get("minItems", 1)
    count = rng.randint(low, min(schema.get("maxItems", 3), low + 3))
    items = [fill(schema["items"], words, rng, name) for _ in range(count)]
    if schema.get("uniqueItems"):
        items = [item for n, item in enumerate(items) if item not in items[:n]]
    return items


def _string(schema: dict[str, Any], words: list[str], rng: random.Random) -> str:
    low, high = schema.get("minLength", 1), schema.get("maxLength", 120)
    start = rng.randrange(len(words))
    text = " ".join((words * 2)[start : start + rng.randint(4, 10)])[:high].strip() or words[0][:high]
    while len(text) < low:
        text += f" {rng.choice(words)}"
    return text[:high]


def _schema(body: dict[str, Any]) -> dict[str, Any] | None:
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return form["json_schema"]["schema"]
    if "json_schema" in body:
        return body["json_schema"]
    _, marker, shown = (body.get("messages") or [{}])[-1].get("content", "").rpartition("by this JSON Schema:\n")
    return json.loads(shown) if marker else None


def _prompt(body: dict[str, Any]) -> str:
    if "messages" in body:
        said = [m["content"] for m in body["messages"] if m["role"] == "user"]
        return said[-1] if said else ""
    prompt = body.get("prompt", "")
    return prompt if isinstance(prompt, str) else " ".join(f"t{i}" for i in prompt)


def _limit(body: dict[str, Any]) -> int:
    return int(body.get("max_tokens") or body.get("max_completion_tokens") or 1 << 30)


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    rows = [{"index": n, "embedding": _vector(text)} for n, text in enumerate(texts)]
    tokens = sum(len(text.encode()) // 4 + 1 for text in texts)
    return {"data": rows, "model": body.get("model"), "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _vector(text: str) -> list[float]:
    """A bag of hashed words: texts that share words lie near each other."""
    vector = [0.0] * 32
    for word in _WORD.findall(text.lower()):
        vector[int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % 32] += 1.0
    length = sum(x * x for x in vector) ** 0.5 or 1.0
    return [x / length for x in vector]


def _error(message: str) -> bytes:
    return json.dumps({"error": {"message": message, "type": "fake_error"}}).encode()


def application(fake: Fake) -> web.Application:
    async def stats(_: web.Request) -> web.Response:
        return web.json_response(fake.stats())

    async def reset(request: web.Request) -> web.Response:
        """Forget the counts; options in the body take effect."""
        for name, value in (await request.json() if request.can_read_body else {}).items():
            setattr(fake.options, name, value)
        fake.reset()
        return web.json_response({})

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": "fake", "object": "model"}]})

    app = web.Application(client_max_size=64 << 20)
    app.add_routes([web.get("/stats", stats), web.post("/reset", reset), web.get("/v1/models", models)])
    for name in ("chat/completions", "completions", "embeddings"):
        app.router.add_post(f"/v1/{name}", fake.handle)
    return app


def _die_with_parent(lifetime: float) -> None:
    def watch_input() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    def watch_clock() -> None:
        time.sleep(lifetime)
        os._exit(0)

    threading.Thread(target=watch_input, daemon=True).start()
    threading.Thread(target=watch_clock, daemon=True).start()


def options_of(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lifetime-s", type=float, default=900)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--p429", type=float, default=0)
    parser.add_argument("--p500", type=float, default=0)
    parser.add_argument("--phang", type=float, default=0)
    parser.add_argument("--pbadjson", type=float, default=0)
    parser.add_argument("--plength", type=float, default=0, help="share of requests answered with finish_reason=length")
    parser.add_argument("--pinvalid", type=float, default=0, help="share of requests answered against their schema")
    parser.add_argument("--bad-until-turns", type=int, default=2, help="longer conversations get no bad answers")
    parser.add_argument("--retry-after", type=float, default=0.2)
    parser.add_argument("--hang-s", type=float, default=3600)
    parser.add_argument("--poison", default="", help="requests that hold this text always get 500")
    parser.add_argument("--refuse", default="", help="requests that hold this text always get 400")
    parser.add_argument("--finish", default="", help="finish_reason of every answer")
    parser.add_argument("--api-key", default="")
    parser.add_argument("--no-usage", action="store_true")
    parser.add_argument("--max-tokens-bind", action="store_true", help="cut answers at max_tokens words")
    return parser.parse_args(argv)


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
