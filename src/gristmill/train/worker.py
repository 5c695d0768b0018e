"""One process of a training that several share: `torchrun ... -m gristmill.train.worker JOB`.

Started by `launch`, rank 0 tells its parent what it would tell the hall, a line of JSON each on standard output, and
hears there when to stop; the end of standard input is the end of the parent, and of this training. Started by hand
(`--alone`, on several machines over one file system) it tells the same to whoever reads, and SIGTERM asks it to stop.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import IO, Any

import orjson
import torch
from torch import distributed

from gristmill.core.errors import GristmillError
from gristmill.core.files import atomic
from gristmill.train.job import Job, learn, pinned_threads
from gristmill.train.parallel import Ranks

STOP = b"stop\n"


class WorkerContext:
    """The pass context of a process. Rank 0 speaks; the others work in silence."""

    def __init__(self, job: Job, told: IO[bytes] | None) -> None:
        self.folder = job.folder
        self.seed = job.seed
        self._told = told
        self._asked = threading.Event()

    def stop(self, *_: Any) -> None:
        self._asked.set()

    def stopping(self) -> bool:
        return self._asked.is_set()

    def metric(self, **values: float | int | str) -> None:
        self._tell("metric", values)

    def warn(self, message: str) -> None:
        self._tell("warn", {"message": message})

    def progress(self, done: float, total: float, **values: float | str) -> None:
        self._tell("progress", {"done": done, "total": total, **values})

    def _tell(self, what: str, values: dict[str, Any]) -> None:
        if self._told is not None:
            self._told.write(orjson.dumps({what: values}) + b"\n")
            self._told.flush()


def main(job_file: Path, *, alone: bool) -> int:
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    job = Job.read(job_file)
    told = _only_ours() if rank == 0 else None
    ctx: Any = WorkerContext(job, told)
    if alone:
        signal.signal(signal.SIGTERM, ctx.stop)
    elif rank == 0:
        threading.Thread(target=_listen, args=(ctx,), daemon=True).start()
    _join(job)
    try:
        with pinned_threads(job.around["threads"], exact=job.config.device == "cpu"):
            learn(job, ctx, ranks=Ranks(rank, world, job.config.strategy))
    except GristmillError as error:
        plain = {"error": type(error).__name__, "message": error.message, "hint": error.hint}
        with atomic(job.folder / error_name(rank)) as file:
            file.write(orjson.dumps(plain))
        return 1
    distributed.destroy_process_group()
    return 0


def error_name(rank: int) -> str:
    """The file of the stage's folder in which a process says why it ended."""
    return f"error-{rank}.json"


def _join(job: Job) -> None:
    if job.config.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("cpu:gloo,cuda:nccl")
    else:
        distributed.init_process_group("gloo")


def _only_ours() -> IO[bytes]:
    """Standard output for what is told alone: what a library prints goes to standard error."""
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return told


def _listen(ctx: WorkerContext) -> None:
    while os.read(0, len(STOP)) == STOP:
        ctx.stop()
    os._exit(1)  # the parent is gone: whoever goes on from the last checkpoint must not meet us


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), alone="--alone" in sys.argv[2:]))
