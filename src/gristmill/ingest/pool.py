"""A pool of reading children: a few threads, each the owner of one child, which is replaced after every so many
files.

One child reads one file at a time under a deadline; a crash, a hang or too much memory costs that file and that
child, nothing else. A child dies with the thread that owns it, so threads live as long as the pool. Started at the
first file, shared by all stages of a process, closed at its end.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import Any

import orjson

from gristmill.core.errors import ConfigError, Reject

FILES_PER_CHILD = 200
START_SECONDS = 60.0  # a child imports its libraries before its first answer
GRACE = 1.0  # the processor-time limit of the child itself comes first
MAX_ANSWER = 256 << 20  # bytes
HEAD = struct.Struct(">Q")
KEPT = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TESSDATA_PREFIX")
SINGLE = {"OMP_THREAD_LIMIT": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Gone(Exception):
    """The child ended, or had to be ended, before it answered."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Child:
    """One reading process and the two pipes to it."""

    def __init__(self) -> None:
        environment = {name: os.environ[name] for name in KEPT if name in os.environ} | SINGLE
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "gristmill.ingest.worker"],
            stdin=theirs_in,
            stdout=theirs_out,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.stdin = os.fdopen(ours_out, "wb")
        self.stdout = os.fdopen(ours_in, "rb", buffering=0)
        self.files = 0

    def ask(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Its answer, within `seconds` since it was asked or since it last said that it is alive."""
        body = orjson.dumps(request)
        if self.files == 0:
            self._await_start()
        self.files += 1
        try:
            self.stdin.write(HEAD.pack(len(body)) + body)
            self.stdin.flush()
        except OSError as error:
            raise Gone("reader crashed") from error
        while True:
            answer = self._frame(time.monotonic() + seconds + GRACE, seconds)
            if "alive" not in answer:
                return answer

    def _await_start(self) -> None:
        """A child says that it is alive once its libraries are imported. One that never does is no file's fault."""
        try:
            self._frame(time.monotonic() + START_SECONDS, START_SECONDS)
        except Gone as gone:
            self.kill()
            raise ConfigError(
                f"the reader of documents does not start: {gone.why}",
                "`python -m gristmill.ingest.worker` shows why.",
            ) from gone

    def _frame(self, deadline: float, seconds: float) -> dict[str, Any]:
        size = HEAD.unpack(self._read(HEAD.size, deadline, seconds))[0]
        if size > MAX_ANSWER:
            raise Gone("holds too much text")
        frame: dict[str, Any] = orjson.loads(self._read(size, deadline, seconds))
        return frame

    def _read(self, size: int, deadline: float, seconds: float) -> bytearray:
        fd, data = self.stdout.fileno(), bytearray()
        poll = select.poll()  # not select(): a busy process has descriptors beyond 1024
        poll.register(fd, select.POLLIN | select.POLLHUP)
        while len(data) < size:
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise Gone(f"took longer than {seconds:g} s")
            piece = os.read(fd, min(size - len(data), 1 << 20))
            if not piece:
                raise Gone(self._cause(seconds))
            data += piece
        return data

    def _cause(self, seconds: float) -> str:
        code = self.process.wait()
        if code == -signal.SIGXCPU:
            return f"took longer than {seconds:g} s"
        return "reader crashed"

    def kill(self) -> None:
        """End it and whatever it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.stdin, self.stdout):
            with suppress(OSError):
                pipe.close()


class Job:
    """One file to read; `cancel` ends the child that is at it."""

    def __init__(self, request: dict[str, Any], seconds: float) -> None:
        self.request, self.seconds = request, seconds
        self.child: Child | None = None
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        if self.child is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child.process.pid, signal.SIGKILL)


class Pool:
    def __init__(self, size: int) -> None:
        self.size = size
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="reader")
        self._own = threading.local()
        self._children: set[Child] = set()

    async def read(self, request: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        """The child's answer: a document's parts. Reject if there are none, ConfigError if a library is missing."""
        job = Job(request, seconds)
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._run, job)
        except asyncio.CancelledError:
            job.cancel()
            raise
        if "reject" in answer:
            raise Reject(answer["reject"], answer.get("detail", ""))
        if "config" in answer:
            raise ConfigError(*answer["config"])
        parts: dict[str, Any] = answer["parts"]
        return parts

    def _run(self, job: Job) -> dict[str, Any]:
        if job.cancelled:
            return {"reject": "cancelled"}
        child = job.child = self._child()
        try:
            answer = child.ask(job.request, job.seconds)
        except Gone as gone:
            self._drop(child)
            return {"reject": gone.why}
        finally:
            job.child = None
        if answer.pop("worn", False) or child.files >= FILES_PER_CHILD:
            self._drop(child)
        return answer

    def _child(self) -> Child:
        child: Child | None = getattr(self._own, "child", None)
        if child is None or child.process.poll() is not None:
            child = self._own.child = Child()
            self._children.add(child)
        return child

    def _drop(self, child: Child) -> None:
        child.kill()
        self._children.discard(child)
        self._own.child = None

    def close(self) -> None:
        for child in list(self._children):
            child.kill()
        self._children.clear()
        self._threads.shutdown(wait=True, cancel_futures=True)


@cache
def shared() -> Pool:
    """The pool of this process: a child a core."""
    pool = Pool(max(1, len(os.sched_getaffinity(0))))
    atexit.register(pool.close)
    return pool
