"""A real llama.cpp server with four slots, which queues and never says 429: what a bare load generator gets out of it
at several fixed concurrencies, and what Gristmill's client gets with adaptive limits and nothing tuned
(`make bench-local`, REPS=… for fewer repetitions).

Every pass sends the same number of chats with answers of the same different lengths; prompts differ from pass to pass,
so that no pass finds another's prompt in the cache. Passes are interleaved and repeated; medians count. Each pass of
the client begins with an empty store: nothing is remembered.

The gate is on tokens per second of wall time, the client's against the best of the bare generator's: it is what whoever
waits for the answers gets, with nothing taken off. Beside it stands the same ratio per second of the server's own CPU
time. That cannot be the gate, because a client that lets the server idle loses nothing by it; but where others use the
machine it tells why the gate fails: near 1 the server worked as well for either, and what is missing is time in which
it had no core, or nothing to do.
"""

from __future__ import annotations

import asyncio
import json
import math
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
CALLS, REPETITIONS = 60, int(os.environ.get("REPS", "3"))
KEY = "BENCH_LOCAL_KEY"
GATE = 0.95
OURS = "gristmill, adaptive"
THINGS = ("river", "lighthouse", "bridge", "harbour", "market", "mill", "forest", "railway", "castle", "island")


@dataclass(frozen=True)
class Pass:
    """What one pass brought."""

    tokens: int
    seconds: float
    note: str
    busy: float = math.nan  # seconds of CPU time of the server

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds

    @property
    def per_busy_second(self) -> float:
        return self.tokens / self.busy


@contextmanager
def server() -> Iterator[tuple[str, int]]:
    """The address of a llama.cpp server, up to /v1, and its process. It dies with this one."""
    weights = locate(MODEL, base=Path())
    os.environ[KEY] = secrets.token_urlsafe(16)
    settings = {"model": str(weights.path), "slots": SLOTS, "context": CONTEXT, "threads": THREADS}
    child = subprocess.Popen(
        [sys.executable, "-m", "gristmill.llm.local.engine_child"],
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


def worked(process: int) -> float:
    """Seconds of CPU time that the server has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def passes(url: str, process: int) -> dict[str, list[Pass]]:
    found: dict[str, list[Pass]] = {}
    await bare(url, 0, SLOTS, calls=8)  # warm
    number = 0
    for _ in range(REPETITIONS):
        for name in [*(f"bare, {count} in flight" for count in COUNTS), OURS]:
            number += 1
            count, before = name.split()[1], worked(process)
            one = await (bare(url, number, int(count)) if name.startswith("bare") else adaptive(url, number))
            one = replace(one, busy=worked(process) - before)
            found.setdefault(name, []).append(one)
            print(
                f"{name:<22} {one.rate:6.1f} tokens/s; {one.tokens} in {one.seconds:.1f} s, "
                f"{one.busy:.1f} s of the server's CPU  {one.note}",
                flush=True,
            )
    return found


def main() -> None:
    with server() as (url, process):
        found = asyncio.run(passes(url, process))
    rates = {name: statistics.median(one.rate for one in many) for name, many in found.items()}
    busy = {name: statistics.median(one.per_busy_second for one in many) for name, many in found.items()}
    bare = [name for name in rates if name.startswith("bare")]
    best = max(bare, key=rates.__getitem__)
    share, spared = rates[OURS] / rates[best], busy[OURS] / max(busy[name] for name in bare)
    print(f"best of the bare generator: {best.removeprefix('bare, ')}, {rates[best]:.1f} tokens/s (medians)")
    print(f"{OURS}: {rates[OURS]:.1f} tokens/s = {share:.3f} of it; per second of the server's CPU {spared:.3f}")
    if share < GATE:
        sys.exit(f"FAIL: the gate is {GATE}")
    print(f"PASS: the gate is {GATE}")
