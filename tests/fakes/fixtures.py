"""`with fake_server(latency_ms=20, p429=0.1) as fake:` — `.url`, `.stats()`, `.reset(**options)`."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FakeServer:
    url: str  # ends in /v1

    def stats(self) -> dict[str, Any]:
        """attempts and answered by request hash, statuses, calls in all, max_in_flight."""
        return self._ask("/stats")

    def reset(self, **options: Any) -> None:
        """Forget the counts, and set options as on the command line (latency_ms=0, p429=0.2, ...)."""
        self._ask("/reset", json.dumps(options).encode())

    def fresh(self, **options: Any) -> None:
        """As `reset`, from the options that it was started with."""
        self._ask("/fresh", json.dumps(options).encode())

    def _ask(self, path: str, body: bytes | None = None) -> Any:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + path, body, timeout=20) as reply:
            return json.load(reply)


@contextmanager
def fake_server(**options: Any) -> Iterator[FakeServer]:
    """A fake server in its own process for as long as the block runs. Give port=… to start it again where it was."""
    arguments = [sys.executable, "-m", "tests.fakes.server"]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        arguments += [flag] if value is True else [] if value is False else [flag, str(value)]
    project = Path(__file__).parents[2]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=project)
    try:
        assert process.stdout is not None
        yield FakeServer(json.loads(process.stdout.readline())["url"])
    finally:
        process.kill()
        process.communicate()
