"""A folder of bad files: each is rejected with its reason or read right, none stops the others, none hangs."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.ingest.conftest import Context, docx, read_all, w_p, zipped

from gristmill.core.errors import ConfigError, InputError, Reject
from gristmill.core.records import Document, File
from gristmill.core.stage import Dropped
from gristmill.ingest import files, pool
from gristmill.ingest.stages import ReadConfig

Read = Callable[..., Any]
MANY = 100_000


def bad_folder(root: Path) -> dict[str, str]:
    """Writes the files; path -> the reason each is rejected with."""
    folder = root / "bad"
    (folder / ".git").mkdir(parents=True)
    noise = random.Random(7).randbytes(20_000)
    good = docx(w_p("Good text."))
    entity = '<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    contents: dict[str, tuple[bytes, str]] = {
        "empty.txt": (b"", "empty file"),
        "blank.md": (b" \n\t\n", "empty file"),
        "cut.docx": (good[: len(good) // 2], "damaged archive"),
        "cut.pdf": (b"%PDF-1.7\n1 0 obj\n<<", "damaged pdf"),
        "wrong.pdf": (b"Only words.", "not a pdf file"),
        "nul.txt": (b"abc\0def\0\0xyz" * 50, "unknown binary file"),
        "zeros.bin": (bytes(5000), "unknown binary file"),
        "random.bin": (noise, "unknown binary file"),
        "random.txt": (noise.replace(b"\0", b"\1"), "unknown binary file"),
        "random.pdf": (b"%PDF-1.4\n" + noise, "damaged pdf"),
        "random.docx": (b"PK\x03\x04" + noise, "damaged archive"),
        "bomb.docx": (docx(w_p("x"), {"word/media/a.bin": bytes(300_000_000)}), "archive bomb"),
        "crowd.docx": (docx(w_p("x"), {f"a/{n}": b"" for n in range(20_001)}), "archive with too many entries"),
        "up.docx": (docx(w_p("x"), {"../../evil.txt": b"x"}), "archive entry outside its folder"),
        "root.docx": (docx(w_p("x"), {"/etc/evil": b"x"}), "archive entry outside its folder"),
        "entity.docx": (docx(w_p("x"), {"docProps/core.xml": entity + "<d>&b;</d>"}), "XML with entities or a DTD"),
        "plain.zip": (zipped({"a.txt": b"x"}), "zip archive that is no document"),
        "old.doc": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "old or encrypted Office file"),
        "note.rtf": (b"{\\rtf1 hello}", "rtf is not read"),
        "data.json": (b'{"a": 1}', "json is not read"),
        "deep.jsonl": (b"[" * MANY, "nested too deeply"),
    }
    for name, (data, _) in contents.items():
        (folder / name).write_bytes(data)
    (folder / ".hidden.txt").write_text("Not looked at.")
    (folder / ".git" / "config").write_text("Not looked at.")
    (root / "outside.txt").write_text("Secret.")
    (folder / "escape.txt").symlink_to("../outside.txt")
    (folder / "lost.txt").symlink_to("nowhere")
    (folder / "loop").symlink_to(".")
    os.mkfifo(folder / "pipe.txt")
    links = {"escape.txt": "link out of the folder", "lost.txt": "broken link", "loop": "link to a folder"}
    expected = {name: reason for name, (_, reason) in contents.items()} | links | {"pipe.txt": "not a plain file"}
    return {f"bad/{name}": reason for name, reason in expected.items()}


async def test_every_bad_file_has_its_reason(tmp_path: Path) -> None:
    expected = bad_folder(tmp_path)
    (tmp_path / "bad" / "good.txt").write_text("Good text among bad.")
    (tmp_path / "bad" / "inside.txt").symlink_to("good.txt")
    found = await read_all(tmp_path, "bad")
    good = {path for path, result in found.items() if isinstance(result, Document)}
    assert good == {"bad/good.txt", "bad/inside.txt"}
    reasons = {path: str(result).partition(";")[0] for path, result in found.items() if path not in good}
    assert reasons == expected
    assert not (tmp_path / "evil.txt").exists()


def test_8_mb_line_is_read(read_one: Read) -> None:
    document = read_one("a.txt", b"a long line of many words, " * 310_000)
    assert len(document.text) > 8_000_000


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.html", b"<html><body><p>Top.</p>" + b"<div>" * MANY + b"<p>Bottom.</p>", "nested too deeply"),
        ("b.html", b"<html><body><p>Top.</p>" + b"<b>" * 3000 + b"bottom", "nested too deeply"),
        ("c.html", b"<html><body>" + b"<table><tr><td>" * MANY + b"bottom", "nested too deeply"),
        ("d.md", b"> " * MANY + b"bottom", "no text in it"),
    ],
    ids=["div", "inline", "table", "quote"],
)
def test_100000_nested_tags_end_in_time(read_one: Read, name: str, data: bytes, reason: str) -> None:
    started = time.monotonic()
    assert read_one(name, data, seconds=10) == reason
    assert time.monotonic() - started < 20


def test_zip_that_lies_about_its_size(read_one: Read) -> None:
    data = bytearray(docx(w_p("x"), {"word/media/a.bin": bytes(50_000_000)}))
    at = data.rindex(b"word/media/a.bin") - 46  # its entry in the central directory
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")
    assert read_one("a.docx", bytes(data)) in ("damaged archive", "archive bomb")


def test_a_hang_costs_its_file_only(read_one: Read, tmp_path: Path) -> None:
    slow = "|" + "a|" * 20_000 + "\n|" + "-|" * 20_000 + "\n" + ("|" + "b|" * 20_000 + "\n") * 200
    assert read_one("a.md", slow.encode(), seconds=0.5) == "took longer than 0.5 s"
    assert read_one("b.txt", b"Next one.").text == "Next one."


def test_memory_is_limited(read_one: Read) -> None:
    assert read_one("a.txt", "日本".encode() * 12_000_000, memory_mb=256) in (
        "reader ran out of memory",
        "reader crashed",
    )
    assert read_one("b.txt", b"Next one.", memory_mb=256).text == "Next one."


async def test_a_killed_child_costs_its_file_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words " * 1000)
    own = pool.Pool(1)
    request = {"location": str(tmp_path / "a.txt"), "path": "a.txt", "memory": 1 << 30, "seconds": 30, "options": {}}
    request["sha256"] = next(iter(files.run(ReadConfig(kind="x", paths=["a.txt"]), [], Context(tmp_path)))).sha256
    try:
        assert (await own.read(request, seconds=30))["text"]
        (child,) = own._children
        os.kill(child.process.pid, signal.SIGSTOP)
        killer = asyncio.get_running_loop().call_later(0.3, os.kill, child.process.pid, signal.SIGKILL)
        with pytest.raises(Reject, match="reader crashed"):
            await own.read(request, seconds=30)
        killer.cancel()
        assert (await own.read(request, seconds=30))["text"]
    finally:
        own.close()


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from gristmill.ingest.pool import Child\n"
        "child = Child()\n"
        "print(child.process.pid, flush=True)\n"
        "signal.pause()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(0.5)
    os.kill(child, signal.SIGSTOP)  # busy: it cannot see that its pipe has ended
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 5
    while running(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(child)


def running(pid: int) -> bool:
    """Not ended, and not a zombie that nobody has collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_a_cancelled_read_ends_its_child(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    own = pool.Pool(1)
    request = {"location": str(tmp_path / "a.txt"), "path": "a.txt", "memory": 1 << 30, "seconds": 60, "options": {}}
    request["sha256"] = next(iter(files.run(ReadConfig(kind="x", paths=["a.txt"]), [], Context(tmp_path)))).sha256
    try:
        await own.read(request, seconds=60)
        (child,) = own._children
        os.kill(child.process.pid, signal.SIGSTOP)
        task = asyncio.create_task(own.read(request, seconds=60))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        started = time.monotonic()
    finally:
        own.close()
    assert time.monotonic() - started < 5


async def test_children_know_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "value-of-the-key")
    (tmp_path / "a.txt").write_text("words")
    own = pool.Pool(1)
    try:
        child = own._child()
        assert b"value-of-the-key" not in Path(f"/proc/{child.process.pid}/environ").read_bytes()
    finally:
        own.close()


async def own_read(tmp_path: Path, name: str) -> dict[str, Any]:
    """One file read by a pool that starts with the environment as it is now."""
    listed = next(iter(files.run(ReadConfig(kind="x", paths=[name]), [], Context(tmp_path))))
    assert isinstance(listed, File)
    own = pool.Pool(1)
    request = {"location": str(tmp_path / name), "path": name, "sha256": listed.sha256}
    try:
        return await own.read(request | {"memory": 1 << 30, "seconds": 30, "options": {}}, seconds=30)
    finally:
        own.close()


async def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.docx").write_bytes(docx(w_p("x")))
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "mammoth.py").write_text("raise ModuleNotFoundError('gone', name='mammoth')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "hidden"))
    with pytest.raises(ConfigError, match="not installed") as caught:
        await own_read(tmp_path, "a.docx")
    assert "pip install" in caught.value.hint


async def test_a_reader_that_cannot_start_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "py3langid.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ConfigError, match="does not start"):
        await own_read(tmp_path, "a.txt")


def test_a_file_changed_since_it_was_listed_is_refused(tmp_path: Path) -> None:
    from gristmill.ingest import read

    (tmp_path / "a.txt").write_text("before")
    config = ReadConfig(kind="ingest.read", paths=["a.txt"])
    (file,) = files.run(config, [], Context(tmp_path))
    assert isinstance(file, File)
    (tmp_path / "a.txt").write_text("after")
    with pytest.raises(Reject, match="changed while it was read"):
        asyncio.run(read.run(config, file, Context(tmp_path)))


def test_listing(tmp_path: Path) -> None:
    for name in ("docs/b.md", "docs/a.txt", "docs/sub/c.md", "docs/sub/d.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    def listed(**options: Any) -> list[str]:
        return [f.path for f in files.found(ReadConfig(kind="ingest.read", paths=["docs"], **options), tmp_path)]

    assert listed() == ["docs/a.txt", "docs/b.md", "docs/sub/c.md", "docs/sub/d.log"]
    assert listed(include=["*.md"]) == ["docs/b.md", "docs/sub/c.md"]
    assert listed(exclude=["sub/**"]) == ["docs/a.txt", "docs/b.md"]
    assert listed(limit=1) == ["docs/a.txt"]
    both = ReadConfig(kind="ingest.read", paths=["docs/a.txt", "docs"])
    assert len(files.inputs(both, tmp_path)) == 4
    (tmp_path / "void").mkdir()
    for paths in (["void"], ["missing"]):
        with pytest.raises(InputError):
            files.found(ReadConfig(kind="ingest.read", paths=paths), tmp_path)


async def test_a_name_that_is_not_utf8_stops_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    (folder / os.fsdecode(b"\xe4lter")).mkdir(parents=True)
    for name in (b"b\xff.txt", b"b\xfe.txt", b"\xe4lter/c.txt", "ä.txt".encode()):
        (folder / os.fsdecode(name)).write_text("Some words.")
    config = ReadConfig(kind="ingest.read", paths=["docs"])
    assert files.inputs(config, tmp_path) == [folder / "ä.txt"]
    listed = list(files.run(config, [], Context(tmp_path)))
    dropped = [item for item in listed if isinstance(item, Dropped)]
    assert {item.reason for item in dropped} == {"name is not UTF-8"}
    paths = sorted(item.record.to_row()["body"] for item in dropped)  # each can be written down, and told apart
    assert [path.count("\\\\x") for path in paths] == [1, 1, 1] and len(set(paths)) == 3
    assert isinstance((await read_all(tmp_path, "docs"))["docs/ä.txt"], Document)


def test_too_large_is_dropped_unread(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 2_000_000)
    found = asyncio.run(read_all(tmp_path, "a.txt", max_mb=1))
    assert found == {"a.txt": "larger than max_mb"}


async def test_500_small_pages_in_30_seconds(tmp_path: Path) -> None:
    paragraph = "<p>The keeper of the lamp walks to the tower at dusk and lights it with care and oil.</p>"
    for n in range(500):
        page = f"<html><head><title>{n}</title></head><body><div><h1>Page {n}</h1>{paragraph * 50}</div></body></html>"
        (tmp_path / f"{n}.html").write_text(page)
    started = time.monotonic()
    found = await read_all(tmp_path, ".")
    assert all(isinstance(d, Document) for d in found.values()) and len(found) == 500
    assert time.monotonic() - started < 30
