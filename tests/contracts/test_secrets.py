"""Canary secrets through everything that can go wrong with them: no byte of them is written, printed or passed on.

Real runs over HTTP against a server that quotes the key back, with a key rotated in between. What lies in the workspace
is read byte by byte, compressed tables and databases unpacked; so are the arguments of every process of the run.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pyarrow.parquet as pq
import pytest
from tests.core.postgres_server import postgres_server
from tests.fakes.batch import batch_server
from tests.fakes.fixtures import FakeServer, fake_server
from tests.runs.project import PLACES, Project

from gristmill.core import logs, secrets
from gristmill.core.errors import ConfigError

OLD, NEW = 'sk-canary/orange+"anvil"', "sk-canary-lantern-thimble"
THIRD = "canary-walnut@harbour"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeServer]:
    with fake_server(api_key=NEW) as server:
        yield server


@pytest.fixture
def small(tmp_path: Path, server: FakeServer) -> Project:
    project = Project(tmp_path)
    project.add(*PLACES[:3])
    writer = {"provider": "openai", "base_url": "env:LLM_URL", "api_key": "env:LLM_KEY", "model": "m", "attempts": 2}
    project.recipe(server.url, models={"writer": writer})
    return project


def forms(secret: str) -> set[bytes]:
    """How a secret may look where it is written."""
    raw = secret.encode()
    encoded = base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"=")
    return {raw, *encoded, quote(secret).encode(), quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode()}


def assert_clean(place: str, written: bytes, *canaries: str) -> None:
    for canary in canaries:
        found = [form for form in forms(canary) if form in written]
        assert not found, f"{found} in {place}"


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file as it lies there, and what is packed in it."""
    raws = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    for path, raw in raws.items():
        yield str(path), raw
        if path.suffix == ".parquet":
            yield str(path), repr(pq.read_table(path).to_pylist()).encode()
        if raw.startswith(b"SQLite format 3"):
            with sqlite3.connect(path) as connection:
                tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
                for table in tables:
                    for row in connection.execute(f"SELECT * FROM {table}"):
                        yield f"{path} {table}", b" ".join(v if isinstance(v, bytes) else repr(v).encode() for v in row)
            connection.close()


def arguments_of(pid: int) -> Iterator[bytes]:
    """Of a process and all below it, as long as they live."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            mine = parent == pid or path.parent.name == str(pid)
            if mine:
                yield (path.parent / "cmdline").read_bytes()
        except (OSError, IndexError):
            continue


def run(project: Project, *command: str, code: int, **environment: str) -> bytes:
    """All that a command prints; its processes' arguments are looked at while it runs."""
    full = {**os.environ, "GRISTMILL_WORKSPACE": str(project.workspace), "GRISTMILL_LOG": "debug", **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(project.command(*command), env=full, **pipes) as process:  # type: ignore[call-overload]
        while process.poll() is None:
            for line in arguments_of(process.pid):
                assert_clean("argv", line, OLD, NEW, THIRD)
            time.sleep(0.05)
        said: bytes = process.stdout.read()
    assert process.returncode == code, said.decode()
    return said


def test_a_key_that_the_server_quotes_is_written_nowhere(small: Project, server: FakeServer) -> None:
    recipe = str(small.folder / "recipe.yaml")
    said = run(small, "run", recipe, code=4, LLM_URL=server.url, LLM_KEY=OLD)
    assert b"401" in said and b"[env:LLM_KEY]" in said
    server.reset(status=400, words=f"key {NEW} ({base64.b64encode(NEW.encode()).decode()}) may not say Orvale")
    said += run(small, "run", recipe, code=4, LLM_URL=server.url, LLM_KEY=NEW)
    for look in (["show", "latest", "rejects"], ["show", "latest", "log", "--limit", "500"]):
        said += run(small, *look, code=0)
    server.reset(status=0)
    assert b"may not say Orvale" in said
    said += run(small, "check", recipe, "--canary", "1", code=0, LLM_URL=server.url, LLM_KEY=NEW)
    said += run(small, "retry", "latest", code=0, LLM_URL=server.url, LLM_KEY=NEW)
    said += run(small, "status", "latest", "--json", code=0)
    assert server.stats()["calls"] > 3
    assert_clean("what was printed", said, OLD, NEW)
    for place, written in contents(small.workspace):
        assert_clean(place, written, OLD, NEW)
    assert any("log.ndjson" in str(path) for path in small.workspace.rglob("*"))


def test_a_key_in_a_file_is_replaced_while_a_run_goes_on(small: Project, server: FakeServer) -> None:
    place = small.folder / "llm.key"
    place.write_text(OLD + "\n")
    server.fresh(api_key=OLD, latency_ms=300)
    environment = {"GRISTMILL_WORKSPACE": str(small.workspace), "LLM_URL": server.url, "LLM_KEY_FILE": str(place)}
    command = small.command("run", small.folder / "recipe.yaml", "--set", "models.writer.concurrency=1")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, env={**os.environ, **environment}, **pipes) as process:  # type: ignore[call-overload]
        while server.stats()["calls"] < 1 and process.poll() is None:
            time.sleep(0.02)
        place.write_text(NEW + "\n")
        server.reset(api_key=NEW)
        said = process.communicate(timeout=60)[0]
    assert process.returncode == 0, said.decode()
    assert server.stats()["statuses"]["401"] == 1 and server.stats()["statuses"]["200"] >= 1
    server.fresh()
    assert_clean("what was printed", said, OLD, NEW)
    for path, written in contents(small.workspace):
        assert_clean(path, written, OLD, NEW)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "MILL_KEY is not set"),
        ({"MILL_KEY": " "}, "MILL_KEY is not set"),
        ({"MILL_KEY": NEW, "MILL_KEY_FILE": "key"}, "both MILL_KEY and MILL_KEY_FILE are set"),
        ({"MILL_KEY_FILE": "gone"}, "MILL_KEY_FILE names cannot be read: No such file"),
        ({"MILL_KEY_FILE": NEW}, "MILL_KEY_FILE names cannot be read: No such file"),
        ({"MILL_KEY_FILE": "empty"}, "MILL_KEY_FILE names is empty"),
        ({"MILL_KEY_FILE": "picture"}, "MILL_KEY_FILE names cannot be read: it holds no text"),
    ],
)
def test_a_secret_that_is_not_there_is_said_without_its_path(
    environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").write_text("\n")
    Path("picture").write_bytes(b"\xff\xd8\xff")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words) as caught:
        secrets.resolve("env:MILL_KEY")
    assert_clean("the error", f"{caught.value} {caught.value.hint}".encode(), NEW)


def test_the_password_in_a_stores_address_is_said_nowhere(small: Project, server: FakeServer) -> None:
    address = f"postgresql://miller:{quote(THIRD)}@127.0.0.1:1/mill"
    environment = {"LLM_URL": server.url, "LLM_KEY": NEW, "GRISTMILL_STORE": address}
    said = run(small, "run", str(small.folder / "recipe.yaml"), code=2, **environment)
    assert b"127.0.0.1" in said
    assert_clean("what was printed", said, THIRD)
    for place, written in contents(small.workspace):
        assert_clean(place, written, THIRD)


def test_batches_and_a_shared_store_write_it_nowhere_either(small: Project) -> None:
    batch = {"size": 50, "seconds": 0.1, "poll": 0.1}
    writer = {"provider": "openai", "base_url": "env:LLM_URL", "api_key": "env:LLM_KEY", "model": "m", "batch": batch}
    small.recipe("", models={"writer": writer})
    recipe = str(small.folder / "recipe.yaml")
    with batch_server("openai") as server, postgres_server(Path(tempfile.mkdtemp(prefix="gristmill-pg-"))) as postgres:
        server.reset(api_key=NEW)
        plain = postgres.new_database()
        address = plain.replace("postgres@", f"postgres:{quote(THIRD)}@")
        environment = {"LLM_URL": server.url, "GRISTMILL_STORE": "env:MILL_STORE", "MILL_STORE": address}
        said = run(small, "run", recipe, code=4, LLM_KEY=OLD, **environment)
        said += run(small, "run", recipe, code=3, LLM_KEY=NEW, **environment)  # its answers hold no facts
        said += run(small, "show", "latest", "rejects", code=0, LLM_KEY=NEW, **environment)
        rows = asyncio.run(everything_in(plain))
    assert len(rows) > 6
    assert_clean("the server", b" ".join(rows), OLD, NEW, THIRD)
    assert_clean("what was printed", said, OLD, NEW, THIRD)
    for place, written in contents(small.workspace):
        assert_clean(place, written, OLD, NEW, THIRD)


async def everything_in(address: str) -> list[bytes]:
    """Every value of every row of a database."""
    link = await asyncpg.connect(address)
    tables = await link.fetch("SELECT schemaname, tablename FROM pg_tables WHERE tableowner = current_user")
    ours = [f"{schema}.{table}" for schema, table in tables if schema not in ("pg_catalog", "information_schema")]
    rows = [row for table in ours for row in await link.fetch(f"SELECT * FROM {table}")]
    await link.close()
    return [b" ".join(v if isinstance(v, bytes) else repr(v).encode() for v in row) for row in rows]


def test_a_secret_is_taken_out_in_every_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MILL_KEY", OLD)
    monkeypatch.setenv("MILL_SHORT", "k")
    monkeypatch.setenv("MILL_STORE", f"postgresql://miller:{quote(THIRD)}@host/db")
    for name in ("MILL_KEY", "MILL_SHORT", "MILL_STORE"):
        secrets.resolve(f"env:{name}")
    with pytest.raises(ConfigError, match="MILL_GONE is not set"):
        secrets.resolve("env:MILL_GONE")
    told = b" | ".join(sorted(forms(OLD) | forms(THIRD))).decode()
    assert_clean("a text", secrets.scrub(told).encode(), OLD, THIRD)
    assert secrets.scrub("thanks, k.") == "thanks, k."
    monkeypatch.setenv("MILL_KEY", NEW)  # rotated: answers to the old one may still be under way
    secrets.resolve("env:MILL_KEY")
    assert secrets.scrub(f"{OLD} {NEW}") == "[env:MILL_KEY] [env:MILL_KEY]"
    with logs.logging_to(tmp_path / "log.ndjson", run="r"):
        logs.log("refused", words=f"who is {OLD}?")
    [line] = [json.loads(line) for line in (tmp_path / "log.ndjson").read_text().splitlines()]
    assert line["words"] == "who is [env:MILL_KEY]?"
