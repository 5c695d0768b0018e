"""One attempt at a run, by the command line, in a process that a test can disturb while it works."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.fixtures import FakeServer
from tests.runs.project import Project


@dataclass
class Attempt:
    process: subprocess.Popen[str]

    def wait_until(self, reached: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not reached():
            if self.process.poll() is not None:
                raise AssertionError(f"ended early: {self.process.communicate()}")
            assert time.monotonic() < end, "never came to it"
            time.sleep(0.01)

    def hears(self, words: str) -> None:
        """Wait until it has said so."""
        assert self.process.stderr is not None
        said = ""
        while words not in said:
            line = self.process.stderr.readline()
            assert line, said
            said += line

    def end(self, seconds: float = 60) -> tuple[int, str, str]:
        """Exit code, output, errors."""
        out, errors = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, errors


@contextmanager
def attempt(project: Project, *arguments: str | Path, **environment: str) -> Iterator[Attempt]:
    """`gristmill run recipe.yaml`, ended at the latest with the block."""
    process = subprocess.Popen(
        project.command("run", project.folder / "recipe.yaml", "--json", *arguments),
        env={**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Attempt(process)
    finally:
        process.kill()
        process.communicate()


def answered(fake: FakeServer) -> int:
    """Answers the server has given in all."""
    return sum(fake.stats()["answered"].values())


def repeated(fake: FakeServer) -> int:
    """Answers it has given again."""
    counts = fake.stats()["answered"].values()
    return sum(counts) - len(counts)
