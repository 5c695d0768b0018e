"""The shared bench's fake server, for what this project measures by itself."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bench.peers import BENCH, python


@dataclass(frozen=True)
class Server:
    url: str

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url + "/__stats", timeout=60) as reply:  # noqa: S310  our own server
            found: dict[str, Any] = json.load(reply)
            return found

    def mark(self) -> None:
        """Begin the clock of first and last request anew."""
        urllib.request.urlopen(self.url + "/__mark", b"{}", timeout=60).close()  # noqa: S310


@contextmanager
def fake_server(latency_ms: float) -> Iterator[Server]:
    """For as long as the block runs."""
    command = [python(), BENCH / "fakellm.py", "--latency-ms", str(latency_ms), "--exit-on-eof", "--max-s", "7200"]
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Server(f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}")
    finally:
        process.kill()
        process.communicate()
