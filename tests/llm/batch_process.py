"""A process that asks a number of questions in batches, to be killed at any point: python -m tests.llm.batch_process

Arguments: a JSON object with provider, url, store, count, and the batch entry of the model. Prints each answer's number
when it is kept. SIGINT asks it to stop, as it does a run; it then prints what it was told.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

from gristmill.core.errors import GristmillError
from gristmill.core.records import Message
from gristmill.core.store import open_store
from gristmill.llm.batch import batcher as batch
from gristmill.llm.client import Client
from gristmill.llm.spec import AnthropicSpec, OpenAISpec

batch.BEAT, batch.GRACE = 0.2, 1.5  # of 5 and 60 seconds: nobody waits that long in a test


async def ask(asked: dict[str, Any]) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopping.set)
    store = open_store(Path(asked["store"]))
    spec = (OpenAISpec if asked["provider"] == "openai" else AnthropicSpec)(
        provider=asked["provider"], model="m", base_url=asked["url"], batch=asked["batch"]
    )
    client = Client(store, workspace=Path(asked["store"]).parent, run="r", stopping=stopping.is_set)
    model = client.model("writer", spec, stage="qa")
    numbers = iter(range(asked["count"]))

    async def worker() -> None:
        for number in numbers:
            answer = await model.chat([Message(role="user", content=f"Question {number}")], max_tokens=20)
            assert answer.text == f"You said: Question {number}"
            print(number, flush=True)

    told = await asyncio.gather(*(worker() for _ in range(client.window([spec]))), return_exceptions=True)
    await client.close()
    store.close()
    for error in (error for error in told if error is not None):
        if not isinstance(error, GristmillError):
            raise error
        print(f"{type(error).__name__}: {error.message}", flush=True)


if __name__ == "__main__":
    asyncio.run(ask(json.loads(sys.argv[1])))
