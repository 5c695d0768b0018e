"""The reading child: `python -m gristmill.ingest.worker`. Length-prefixed JSON in on stdin, out on stdout, until
stdin ends.

It dies with the thread that started it, never outlives its own limits, writes no files, and knows no secrets (its
parent hands it a bare environment). Limits are set anew for every file; what C code does not survive, the parent
sees as a crash.
"""

from __future__ import annotations

import hashlib
import os
import resource
import stat
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.errors import ConfigError, Reject, StageFailure, boundary
from gristmill.core.lifeline import die_with

WRITES = 64 << 20  # bytes a child may write to any one file: nothing is written, but tesseract may buffer
HEAD = struct.Struct(">Q")


@dataclass(frozen=True)
class Limits:
    memory: int  # bytes of address space
    seconds: float


def limit(limits: Limits) -> None:
    """Soft limits for the file at hand. Processor time is counted from now."""
    spent = int(time.process_time()) + 1
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CPU, (spent + int(limits.seconds) + 1, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (WRITES, WRITES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def load(location: Path, sha256: str) -> bytes:
    """The bytes that were listed; a file that changed since is refused."""
    try:
        fd = os.open(location, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Reject("not a plain file")
            data = file.read()
    except OSError as error:
        raise Reject("cannot be opened", error.strerror or "") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Reject("changed while it was read", "run again")
    return data


class Channel:
    """Frames over the two pipes. What libraries print goes to stderr, never between frames."""

    def __init__(self) -> None:
        self.source = os.fdopen(os.dup(0), "rb")
        self.sink = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def receive(self) -> dict[str, Any] | None:
        head = self.source.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        request: dict[str, Any] = orjson.loads(self.source.read(HEAD.unpack(head)[0]))
        return request

    def send(self, message: dict[str, Any]) -> None:
        body = orjson.dumps(message)
        self.sink.write(HEAD.pack(len(body)) + body)
        self.sink.flush()


def answer(request: dict[str, Any], channel: Channel) -> dict[str, Any]:
    """A document's parts, or the reason why there are none."""
    from gristmill.ingest.parse import Options, parse

    limits = Limits(request["memory"], request["seconds"])
    limit(limits)

    def alive() -> None:
        limit(limits)
        channel.send({"alive": True})

    try:
        with boundary("reader"):
            data = load(Path(request["location"]), request["sha256"])
            return {"parts": parse(data, request["path"], Options(**request["options"]), alive)}
    except Reject as reject:
        return {"reject": reject.reason, "detail": reject.detail[:500]}
    except ConfigError as error:  # a library is missing
        return {"config": [error.message, error.hint]}
    except StageFailure as failure:
        if isinstance(failure.__cause__, MemoryError):
            return {"reject": "reader ran out of memory", "detail": "", "worn": True}
        if isinstance(failure.__cause__, RecursionError):
            return {"reject": "nested too deeply", "detail": "", "worn": True}
        return {"reject": "damaged file", "detail": failure.failure.error[:500]}


def main() -> None:
    die_with(os.getppid())
    sys.dont_write_bytecode = True
    channel = Channel()
    from gristmill.ingest.language import language_of

    language_of("Warm up what every file needs.")
    channel.send({"alive": True})
    while (request := channel.receive()) is not None:
        channel.send(answer(request, channel))


if __name__ == "__main__":
    main()
