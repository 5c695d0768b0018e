"""Asked by `gate`, in a process of its own: how llama.cpp reads some texts and goes on from some tokens.

One JSON object on standard input, one on standard output. A native crash here is an exit code there.
"""

from __future__ import annotations

import os
import sys
from itertools import takewhile
from typing import Any
from urllib.request import Request, urlopen

import orjson


def main() -> None:
    out = os.dup(1)
    os.dup2(2, 1)  # what the native code prints must not mix with the answer
    asked = orjson.loads(sys.stdin.buffer.read())
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = asked["gguf"]
    params.n_parallel = 1
    params.n_ctx = asked["context"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked["threads"]
    params.cpuparams.poll = params.cpuparams_batch.poll = 0  # spinning threads starve busy cores
    params.warmup = False
    if asked["adapter"]:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(asked["adapter"], 1.0)]
    server = xllamacpp.Server(params)
    address = server.listening_address
    answer = {
        "prompts": [_one(address, p["text"], p["ids"], asked["tokens"]) for p in asked["prompts"]],
        "added": [_tokens(address, text) for text in asked["added"]],
    }
    with os.fdopen(out, "wb") as file:
        file.write(orjson.dumps(answer))


def _one(address: str, text: str, ids: list[int], tokens: int) -> dict[str, Any]:
    """llama.cpp's tokens for the text; and its greedy continuation of the ids, with log-probabilities.

    It gives none for tokens that are part of a character, so the continuation counts up to the first of these.
    """
    read = _tokens(address, text)
    body = {"prompt": ids, "n_predict": tokens, "temperature": 0, "n_probs": 1, "return_tokens": True}
    answer = _post(address, "/completion", {**body, "cache_prompt": False})
    steps = answer.get("completion_probabilities", [])  # absent where it ends at once
    known = list(takewhile(lambda pair: pair[0] == pair[1]["id"], zip(answer["tokens"], steps, strict=False)))
    return {"ids": read, "chosen": [token for token, _ in known], "logprobs": [s["logprob"] for _, s in known]}


def _tokens(address: str, text: str) -> list[int]:
    body = {"content": text, "add_special": False, "parse_special": True}
    return list(_post(address, "/tokenize", body)["tokens"])


def _post(address: str, path: str, body: dict[str, Any]) -> Any:
    request = Request(address + path, orjson.dumps(body), {"Content-Type": "application/json"})  # noqa: S310
    with urlopen(request, timeout=120) as response:  # noqa: S310  (the loopback address of our own server)
        return orjson.loads(response.read())


if __name__ == "__main__":
    main()
