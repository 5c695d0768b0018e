"""A real llama.cpp server with four slots, which queues and never says 429: what a bare load generator gets out of it
at several fixed concurrencies, and what Gristmill's client gets with adaptive limits and nothing tuned.

Every pass sends the same number of chats with answers of the same different lengths; prompts differ from pass to pass,
so that no pass finds another's prompt in the cache. Passes are interleaved and repeated; medians count. Each pass of
the client begins with an empty store: nothing is remembered.

The server has one thread, and the seconds in which it waited for a core that others used are taken off: on a shared
machine they would decide. A client that lets the server idle is not spared: idling is no waiting for a core.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import orjson

from gristmill.core.records import Message
from gristmill.core.store import open_store
from gristmill.llm.client import Client
from gristmill.llm.spec import OpenAISpec
from gristmill.models.weights import locate

MODEL, SLOTS, CONTEXT, THREADS = "smollm2-135m-instruct", 4, 1024, 1
COUNTS = (4, 8)  # in flight, for the bare generator
CALLS, REPETITIONS = 60, 3
KEY = "BENCH_LOCAL_KEY"
GATE = 0.95
THINGS = ("river", "lighthouse", "bridge", "harbour", "market", "mill", "forest", "railway", "castle", "island")


@dataclass(frozen=True)
class Pass:
    """What one pass brought."""

    tokens: int
    seconds: float
    note: str
    disturbed: float = 0.0  # seconds in which others had the server's core

    @property
    def rate(self) -> float:
        """Tokens a second of those in which the server could work."""
        return self.tokens / (self.seconds - self.disturbed)


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """The address of a llama.cpp server, up to /v1, and its process. It dies with this one."""
    weights = locate(MODEL, base=Path())
    os.environ[KEY] = secrets.token_urlsafe(16)
    settings = {"model": str(weights.path), "slots": SLOTS, "context": CONTEXT, "threads": THREADS}
    child = subprocess.Popen(
        [sys.executable, "-m", "gristmill.llm.engine_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(orjson.dumps({**settings, "token": os.environ[KEY], "parent": os.getpid()}) + b"\n")
    child.stdin.flush()
    try:
        yield json.loads(child.stdout.readline())["url"] + "/v1", child.pid
    finally:
        child.stdin.close()
        child.wait(30)


def work(number: int, calls: int = CALLS) -> list[tuple[str, int]]:
    """Prompts and the most tokens of their answers. The lengths are the same in every pass."""
    rng = random.Random(1)
    lengths = [rng.randint(8, 48) for _ in range(calls)]
    return [
        (f"Pass {number}, story {place}: tell about the {THINGS[place % len(THINGS)]} and its people.", most)
        for place, most in enumerate(lengths)
    ]


async def bare(url: str, number: int, count: int, calls: int = CALLS) -> Pass:
    """The plainest loop: so many workers, a request, its answer, the next."""
    todo, tokens = iter(work(number, calls)), 0
    headers = {"Authorization": f"Bearer {os.environ[KEY]}", "Content-Type": "application/json"}

    async def worker(session: aiohttp.ClientSession) -> None:
        nonlocal tokens
        for prompt, most in todo:
            body = {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": most}
            data = orjson.dumps(body | {"temperature": 0.8})
            async with session.post(f"{url}/chat/completions", data=data) as response:
                answer = orjson.loads(await response.read())
            tokens += answer["usage"]["completion_tokens"]

    began = time.monotonic()
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(600)) as session:
        await asyncio.gather(*(worker(session) for _ in range(count)))
    seconds = time.monotonic() - began
    return Pass(tokens, seconds, "")


async def adaptive(url: str, number: int) -> Pass:
    """Gristmill's client as a recipe would have it that says nothing of limits, its store on disk."""
    spec = OpenAISpec(provider="openai", model=MODEL, base_url=url, api_key=f"env:{KEY}", timeout=600)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(Path(folder, "store.db"))
        client = Client(store, workspace=Path(folder), run="bench")
        model = client.model("writer", spec, stage="write")
        todo, tokens = iter(work(number)), 0

        async def worker() -> None:
            nonlocal tokens
            for prompt, most in todo:
                messages = [Message(role="user", content=prompt)]
                answer = await model.chat(messages, max_tokens=most, temperature=0.8)
                tokens += answer.usage.output

        began = time.monotonic()
        await asyncio.gather(*(worker() for _ in range(32)))
        seconds = time.monotonic() - began
        line = client.lines()[0]
        await client.close()
        store.close()
    return Pass(tokens, seconds, f"limit {line.limit}: {line.why}")


def waited(process: int) -> float:
    """Seconds that the server's busiest thread, the one that computes, has waited for a core that others used."""
    threads = [(task / "schedstat").read_text().split() for task in Path(f"/proc/{process}/task").iterdir()]
    _, waits = max((int(run), int(waits)) for run, waits, _ in threads)
    return waits / 1e9


async def passes(url: str, process: int) -> dict[str, list[Pass]]:
    found: dict[str, list[Pass]] = {}
    await bare(url, 0, SLOTS, calls=8)  # warm
    number = 0
    for _ in range(REPETITIONS):
        for name in [*(f"bare, {count} in flight" for count in COUNTS), "gristmill, adaptive"]:
            number += 1
            count, before = name.split()[1], waited(process)
            one = await (bare(url, number, int(count)) if name.startswith("bare") else adaptive(url, number))
            one = replace(one, disturbed=waited(process) - before)
            found.setdefault(name, []).append(one)
            print(
                f"{name:<22} {one.rate:6.1f} tokens/s; {one.tokens} in {one.seconds:.1f} s, "
                f"of which {one.disturbed:.1f} s waiting for a core  {one.note}",
                flush=True,
            )
    return found


def main() -> None:
    with server() as (url, process):
        found = asyncio.run(passes(url, process))
    medians = {name: statistics.median(one.rate for one in many) for name, many in found.items()}
    best = max((name for name in medians if name.startswith("bare")), key=medians.__getitem__)
    share = medians["gristmill, adaptive"] / medians[best]
    print(f"best of the bare generator: {best.removeprefix('bare, ')}, {medians[best]:.1f} tokens/s (medians)")
    print(f"gristmill, adaptive: {medians['gristmill, adaptive']:.1f} tokens/s = {share:.3f} of it (gate {GATE})")
    if share < GATE:
        sys.exit("below the gate")


if __name__ == "__main__":
    main()
