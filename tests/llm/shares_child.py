"""A process that sends as fast as its share allows: `python -m tests.llm.shares_child STORE RPM BEAT SECONDS`.

Prints the moment of each request, and between them the limit."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from gristmill.core.store import open_store
from gristmill.llm.limits.limiter import Limiter
from gristmill.llm.limits.shares import Shares


async def main(place: str, rpm: int, beat: float, seconds: float) -> None:
    store = open_store(Path(place))
    limiter, shares = Limiter(ceiling=64, start=64, rpm=rpm), Shares(store, beat=beat)
    await shares.join("line", limiter)
    end = time.time() + seconds
    while time.time() < end:
        await limiter.enter(1)
        sys.stdout.write(f"{time.time()} {limiter.limit}\n")
        sys.stdout.flush()
        limiter.left(0.001, 1)
    await shares.close()
    store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
