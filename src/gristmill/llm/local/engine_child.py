"""The process that holds a local model: `python -m gristmill.llm.local.engine_child`, settings as a JSON line on stdin.

llama.cpp is native code: a crash or a memory limit must take down this process alone. It lives exactly as long as the
one that started it: the kernel kills it with its parent, and the end of stdin ends it. One JSON line on stdout says
where it listens; everything llama.cpp prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from gristmill.core.lifeline import die_with


def main() -> None:
    settings = json.loads(sys.stdin.readline())
    die_with(settings["parent"])
    answers = os.dup(1)
    os.dup2(2, 1)
    server = _start(settings)
    os.write(answers, json.dumps({"url": server.listening_address}).encode() + b"\n")
    while sys.stdin.readline():
        pass
    os._exit(0)  # llama.cpp's own ending may wait for requests in flight


def _start(settings: dict[str, Any]) -> Any:
    """The server, ready to answer."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context"]  # shared out evenly among the slots
    params.fit_params = False  # or it may shrink the context to what it thinks fits
    params.cache_ram_mib = 0  # prompts put aside in up to 8 GiB of memory
    params.cache_idle_slots = False
    params.api_keys = [settings["token"]]
    params.ui = False
    params.endpoint_slots = False
    params.verbosity = 2
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = settings["threads"]
        cpu.poll = 0  # threads that spin on cores others use cost a factor of ten
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
