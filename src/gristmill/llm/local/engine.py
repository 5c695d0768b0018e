"""Starts, watches and ends the process that holds a local model."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from gristmill.core.errors import ConfigError, ProviderError
from gristmill.llm.wire.http import Patience, Wire

START_SECONDS = 600  # a large model on a slow disk
ANSWER_SECONDS = 1800  # a long answer on a slow machine
STOP_SECONDS = 5
KEEP_SECONDS = 2  # an idle connection: llama.cpp's server closes its own after 5
MOST_THREADS = 4  # more gain little: memory bandwidth is the limit
LOG_TAIL = 1500  # characters


@dataclass(frozen=True)
class EngineSettings:
    slots: int
    context: int  # tokens of one slot
    threads: int


class LocalEngine:
    """One llama.cpp server on loopback. `wire` talks to it; `start` may be called again after it died."""

    def __init__(self, gguf: Path, settings: EngineSettings, *, log: Path, emit: Callable[..., None]) -> None:
        self.gguf = gguf
        self.settings = settings
        self.log = log
        self.wire: Wire | None = None
        self._emit = emit
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self) -> Wire:
        if importlib.util.find_spec("xllamacpp") is None:
            raise ConfigError("local models need xllamacpp, which is not installed", "pip install xllamacpp")
        began = time.monotonic()
        token = secrets.token_urlsafe(16)  # others on this machine can reach the port, too
        try:
            url = await asyncio.wait_for(self._launch(token), START_SECONDS)
        except TimeoutError as error:
            await self.stop()
            message = f"the engine of {self.gguf} was not ready in {START_SECONDS} s"
            raise ProviderError(message, self._hint(), transient=True) from error
        except asyncio.CancelledError:
            await self.stop()
            raise
        self.wire = Wire(url, api_key=token, patience=Patience(total=ANSWER_SECONDS), keep=KEEP_SECONDS)
        took = round(time.monotonic() - began, 2)
        self._emit("engine.started", model=self.gguf.name, seconds=took, **vars(self.settings))
        return self.wire

    async def _launch(self, token: str) -> str:
        """Start the process and wait for the line that says where it listens."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "gristmill.llm.local.engine_child",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the run, which lets requests in flight end
            )
        settings = {"model": str(self.gguf), "token": token, "parent": os.getpid(), **vars(self.settings)}
        if process.stdin is None or process.stdout is None:
            raise ProviderError("the engine's process has no pipes")
        process.stdin.write(orjson.dumps(settings) + b"\n")
        line = await process.stdout.readline()
        if not line:
            code = await process.wait()
            message = f"the engine of {self.gguf} did not start (exit {code}): {self.tail()}"
            raise ProviderError(message, self._hint(), transient=True)
        return str(orjson.loads(line)["url"])

    def tail(self) -> str:
        """The last words of the engine."""
        with suppress(OSError):
            return self.log.read_text("utf-8", errors="replace").strip()[-LOG_TAIL:]
        return ""

    def _hint(self) -> str:
        return f"Lower `context` or `concurrency` if memory is short; the engine's log is {self.log}."

    async def stop(self) -> None:
        if self.wire is not None:
            await self.wire.close()
            self.wire = None
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()  # the child ends by itself
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


def default_threads() -> int:
    """Physical cores this process may use, at most four: two threads on one core only get in each other's way."""
    cores = {_core_of(cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, min(MOST_THREADS, len(cores), _quota()))


def _core_of(cpu: int) -> str:
    """The processor and core a logical CPU belongs to; itself where the system does not say."""
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    return _first_line([folder / "core_cpus_list", folder / "thread_siblings_list"]) or str(cpu)


def _quota() -> int:
    """CPUs' worth of time that the container may use; a large number where there is no limit."""
    quota, _, period = _first_line([Path("/sys/fs/cgroup/cpu.max")]).partition(" ")
    return max(1, int(quota) // int(period)) if quota.isdigit() and period.isdigit() else 1 << 10


def _first_line(paths: Iterable[Path]) -> str:
    for path in paths:
        with suppress(OSError):
            return path.read_text().strip()
    return ""
