"""Starts the processes of a training on this machine with torchrun, and speaks for them.

What rank 0 tells on standard output is passed on to the hall, and a stop is passed on to rank 0. Nobody outlives the
others: a process that fails ends all (torchrun's work), the end of standard input tells rank 0 that this one is gone,
and the kernel tells torchrun.
"""

from __future__ import annotations

import os
import re
import selectors
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from gristmill.core import errors
from gristmill.core.errors import GristmillError
from gristmill.core.stage import PassContext
from gristmill.train.job import Job
from gristmill.train.worker import STOP, error_name

LOG = "workers.log"
LOOK = 0.2
"""Seconds between two looks at whether to stop."""


def launch(job: Job, ctx: PassContext) -> None:
    """Train with the processes that the job's config asks for, to the end. Their error is raised here."""
    world = job.config.processes
    for rank in range(world):
        (job.folder / error_name(rank)).unlink(missing_ok=True)
    path = job.write()
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(world),
        "-m", "gristmill.train.worker", str(path),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(job.around["threads"]), "OMP_WAIT_POLICY": "PASSIVE"}
    heard, told = os.pipe()
    asked, ask = os.pipe()
    with (job.folder / LOG).open("wb") as log:
        torchrun = subprocess.Popen(
            command, stdin=asked, stdout=told, stderr=log, env=environment, start_new_session=True
        )  # a session of its own: Ctrl-C in the terminal is for this process, which asks the others to save and stop
    os.close(asked)
    os.close(told)
    try:
        _follow(heard, ask, ctx)
    finally:
        os.close(ask)  # whoever still trains ends itself now
        torchrun.wait()
        os.close(heard)
    if torchrun.returncode:
        raise _error(job.folder, world)


def _follow(heard: int, ask: int, ctx: PassContext) -> None:
    """Pass on what is told, until nobody tells anything any more."""
    asked = False
    for line in _lines(heard):
        if line:
            ((what, values),) = orjson.loads(line).items()
            _pass_on(ctx, what, values)
        if not asked and ctx.stopping():
            asked = True
            os.write(ask, STOP)


def _pass_on(ctx: PassContext, what: str, values: dict[str, Any]) -> None:
    if what == "metric":
        ctx.metric(**values)
    elif what == "progress":
        ctx.progress(values.pop("done"), values.pop("total"), **values)
    else:
        ctx.warn(values["message"])


def _lines(heard: int) -> Iterator[bytes]:
    """Whole lines as they come, and an empty one every so often while none does."""
    held = b""
    with selectors.DefaultSelector() as selector:
        selector.register(heard, selectors.EVENT_READ)
        while True:
            if not selector.select(LOOK):
                yield b""
                continue
            found = os.read(heard, 1 << 16)
            if not found:
                return
            *lines, held = (held + found).split(b"\n")
            yield from lines


def _error(folder: Path, world: int) -> GristmillError:
    """Why the processes ended: what one of them says, or how it was killed, or the end of their log."""
    log = (folder / LOG).read_text(errors="replace")
    for rank in range(world):
        path = folder / error_name(rank)
        if path.is_file():
            said = orjson.loads(path.read_bytes())
            return _known(said["error"])(said["message"], said["hint"])
    killed = re.search(r"rank\s*:\s*(\d+)[^\n]*\n\s*exitcode\s*:\s*-(\d+)\s", _without_sigterm(log))
    if killed is not None:
        return GristmillError(
            f"process {killed[1]} of {world} was killed by signal {killed[2]}",
            "Signal 9 often means that the machine had no more memory. Run the same command again: training goes on "
            "from its last checkpoint.",
        )
    raised = re.findall(r"^(?:\[rank\d+\]: )?([\w.]+(?:Error|Exception): .+)$", log, re.MULTILINE)
    told = next((said for said in raised if "ChildFailedError" not in said), "no reason was given")
    return GristmillError(f"a training process failed: {told}", f"{folder / LOG} holds what the processes said.")


def _without_sigterm(log: str) -> str:
    """torchrun's table without those that it ended itself."""
    return re.sub(r"exitcode\s*:\s*-15\s", "exitcode : ended ", log)


def _known(name: str) -> type[GristmillError]:
    """The class of our tree that a process names."""
    kind = getattr(errors, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, GristmillError) else GristmillError
