"""Asked by `reread`, in a process that has never seen the model: what a folder's files say, read as anyone reads them.

Questions are lines of JSON on standard input, answers lines of JSON on standard output, each followed by the logits as
float32. It ends with its parent, at the end of its input, and when nobody asks for a while.
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.lifeline import die_with

IDLE_SECONDS = 60.0


def main() -> None:
    die_with(int(sys.argv[1]))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not mix with an answer
    import torch  # before the first question comes: importing takes longer than answering
    import transformers.modeling_utils  # noqa: F401

    torch.use_deterministic_algorithms(True)
    while select.select([0], [], [], IDLE_SECONDS)[0] and (line := sys.stdin.buffer.readline()):
        answer, logits = _read(orjson.loads(line))
        out.write(orjson.dumps(answer) + b"\n" + logits)
        out.flush()


def _read(asked: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    import torch

    from gristmill.core.errors import GristmillError
    from gristmill.models.load import load_model
    from gristmill.models.renderer import Renderer
    from gristmill.models.reread import logits_of, prompt_ids
    from gristmill.models.weights import Weights

    torch.set_num_threads(asked["threads"])
    weights = Weights(Path(asked["folder"]), "hf", asked["name"])
    try:
        ids = prompt_ids(Renderer.load(weights))
        logits = logits_of(load_model(weights, dtype=asked["dtype"]), ids)
    except GristmillError as error:
        return {"error": error.message}, b""
    return {"ids": ids, "shape": list(logits.shape)}, logits.numpy().tobytes()


if __name__ == "__main__":
    main()
