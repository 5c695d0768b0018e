"""The fixed ground: prompts, records, files, secrets, extras, errors and events."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle  # only to show that an error survives the way between two processes
import threading
from contextvars import copy_context
from pathlib import Path

import pytest
from pydantic import ValidationError

from gristmill.core.errors import (
    BudgetError,
    CheckpointError,
    ConfigError,
    GristmillError,
    InputError,
    ProviderError,
    Reject,
    StageFailure,
    StoreError,
    boundary,
    not_installed,
    run_error,
)
from gristmill.core.events import EventLog, LineFile, read_events
from gristmill.core.extras import EXTRAS, extra_of, install_line, missing
from gristmill.core.files import atomic, link_tree, sha256_file, write_text
from gristmill.core.logs import log, logging_to
from gristmill.core.prompt import Prompt, read_prompt
from gristmill.core.records import Draft, Message, Origin, Sample, Task, from_row
from gristmill.core.secrets import resolve

PROMPT = Prompt("p", "@system\nBe brief.\n@user\nA {{ x }}?\n@assistant\nYes.\n@user\n{{x}} and {{y}}\n")


def test_a_prompt_is_messages_with_names_and_a_value_is_no_template() -> None:
    assert PROMPT.names == {"x", "y"} and PROMPT.ref == f"p@{PROMPT.hash}"
    said = PROMPT.render(x="{{y}}", y=2)
    assert [m.role for m in said] == ["system", "user", "assistant", "user"]
    assert said[-1].content == "{{y}} and 2"
    assert PROMPT.examples == ["A {{ x }}?", "Yes."]
    with pytest.raises(ConfigError, match="unknown names: y") as caught:
        PROMPT.render(x=1, z=2)
    assert caught.value.hint == "Known here: x, z."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello", "does not start with a role"),
        ("x\n@user\nhi", "does not start"),
        ("@user\na\n@assistant\nb", "end with"),
    ],
)
def test_a_malformed_prompt_is_refused_when_it_is_read(tmp_path: Path, text: str, words: str) -> None:
    write_text(tmp_path / "p.md", text)
    with pytest.raises(ConfigError, match=words):
        read_prompt("p", tmp_path / "p.md")


def test_a_prompt_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.md").write_bytes("@user\nGrüße".encode("latin-1"))
    for name in ("nowhere.md", "latin.md"):
        with pytest.raises(ConfigError, match=name):
            read_prompt("p", tmp_path / name)


def test_a_record_comes_back_from_its_row_and_a_changed_one_is_noticed() -> None:
    origin = Origin(stage="s", prompt="p@1", calls=("k",))
    draft = Draft(kind="scene", data={"a": [1, {"b": None}]}, parents=("x",), origin=origin)
    marked = draft.marked(split="test")
    assert marked.id == draft.id and marked.digest != draft.digest and from_row(marked.to_row()) == marked
    other = draft.model_copy(update={"kind": "plan"})
    assert other.id != draft.id
    with pytest.raises(ValueError, match="does not hold what its id says"):
        from_row({**draft.to_row(), "id": other.id})


def test_a_sample_has_one_form_and_knows_its_question_and_answer() -> None:
    chat = Sample(
        form="chat",
        kind="qa",
        messages=(Message(role="user", content="Q?"), Message(role="assistant", content="A.", train=True)),
    )
    assert (chat.question, chat.answer) == ("Q?", "A.")
    text = Sample(form="text", kind="passage", text="T")
    assert (text.question, text.answer) == ("", "T")
    for wrong in ({"form": "text"}, {"form": "chat", "text": "T"}, {"form": "chat"}):
        with pytest.raises(ValidationError, match=f"a {wrong['form']} sample has (text|messages), and nothing else"):
            Sample.model_validate({"kind": "qa", **wrong})
    with pytest.raises(ValidationError):
        Task(question="Q?", answers=())


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "f.txt"
    write_text(path, "one")
    with pytest.raises(RuntimeError), atomic(path, "w") as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "one" and [p.name for p in path.parent.iterdir()] == ["f.txt"]
    assert sha256_file(path) == hashlib.sha256(b"one").hexdigest()
    with pytest.raises(InputError, match="cannot read"):
        sha256_file(tmp_path)


def no_links(*_: object) -> None:
    raise OSError(errno.EXDEV, "other device")


def test_a_linked_folder_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "to" / "target"
    write_text(source / "a/b.txt", "one")
    link_tree(source, target)
    assert (target / "a/b.txt").stat().st_ino == (source / "a/b.txt").stat().st_ino
    write_text(source / "a/b.txt", "two")
    link_tree(source, target)
    assert (target / "a/b.txt").read_text() == "two"

    monkeypatch.setattr(os, "link", no_links)
    link_tree(source, target)
    assert (target / "a/b.txt").stat().st_ino != (source / "a/b.txt").stat().st_ino
    write_text(source / "a/b.txt", "three")
    os.mkfifo(source / "z")  # nothing that can be copied
    with pytest.raises(OSError, match="named pipe"):
        link_tree(source, target)
    assert (target / "a/b.txt").read_text() == "two" and [p.name for p in target.parent.iterdir()] == ["target"]


@pytest.mark.parametrize("links", [True, False])
def test_a_linked_folder_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    source, target = tmp_path / "source", tmp_path / "to" / "target"
    write_text(source / "a/b.txt", "one")
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    synced: list[int] = []
    fsync = os.fsync

    def heard(fd: int) -> None:
        synced.append(os.fstat(fd).st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", heard)
    link_tree(source, target)
    folders = [target.parent, target, target / "a"]
    assert {path.stat().st_ino for path in (folders if links else [*folders, target / "a/b.txt"])} <= set(synced)


def test_a_secret_is_read_when_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILL_KEY", "value")
    assert resolve("env:MILL_KEY") == "value" and resolve("plain") == "plain"
    monkeypatch.setenv("MILL_KEY", "")
    with pytest.raises(ConfigError, match="MILL_KEY is not set"):
        resolve("env:MILL_KEY")


def test_a_missing_module_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert extra_of("torch.nn") == "train" and extra_of("numpy") is None
    assert install_line("docs", "train") == "pip install 'gristmill[docs,train]'"
    monkeypatch.setitem(EXTRAS, "docs", ("no_such_module", "json"))
    assert missing("docs") == ["no_such_module"]
    absent = not_installed(ModuleNotFoundError("No module named 'torch'", name="torch"), "train.sft")
    assert absent is not None and "gristmill[train]" in absent.hint
    assert not_installed(ModuleNotFoundError("x", name="numpy"), "x") is None
    assert not_installed(ValueError("x"), "x") is None
    with pytest.raises(ConfigError, match=r"train\.sft needs a module"), boundary("train.sft"):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")


@pytest.mark.parametrize("error", [Reject("r"), ConfigError("c"), BudgetError("b"), StoreError("s")])
def test_what_concerns_the_run_passes_the_boundary(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, boundary("here"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (ValueError("v"), False),
        (ProviderError("p"), False),
        (ProviderError("p", transient=True), True),
        (MemoryError("m"), True),
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.ENOENT, "gone"), False),
    ],
)
def test_everything_else_gets_an_address(error: Exception, transient: bool) -> None:
    with pytest.raises(StageFailure) as caught, boundary("generate.qa"):
        raise error
    failure = caught.value.failure
    assert (failure.where, failure.transient) == ("generate.qa", transient)
    assert failure.reason == type(error).__name__
    said = run_error(caught.value, "stage qa")
    assert said is error if isinstance(error, GristmillError) else "stage qa failed" in said.message


def test_errors_cross_process_boundaries_whole() -> None:
    for error in (InputError("m", "h"), CheckpointError("m", "h"), ProviderError("m", "h")):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error) and (back.message, back.hint) == ("m", "h")


def test_half_an_event_never_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EventLog(tmp_path / "e.ndjson")
    log.emit("a")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))  # the disk takes seven bytes more
    with pytest.raises(OSError, match="No space left"):
        log.emit("b")
    monkeypatch.undo()
    log.emit("c")
    log.close()
    assert [e["event"] for e in read_events(tmp_path / "e.ndjson")] == ["a", "c"]
    assert list(read_events(tmp_path / "nowhere")) == []


def test_what_is_said_after_the_end_is_written_nowhere(tmp_path: Path) -> None:
    with logging_to(tmp_path / "log.ndjson", run="r"):
        log("first")
        late = copy_context()  # as a task or a thread has that was started here
    with logging_to(tmp_path / "silent.ndjson", run="r"):
        silent = copy_context()
    events = EventLog(tmp_path / "e.ndjson")
    events.close()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with (tmp_path / "foreign").open("wb") as one, (tmp_path / "other").open("wb") as two:
        late.run(log, "late")
        silent.run(log, "late")
        events.emit("late")
        assert (os.fstat(one.fileno()).st_size, os.fstat(two.fileno()).st_size) == (0, 0)
    assert [line["event"] for line in read_events(tmp_path / "log.ndjson")] == ["first"]
    assert not (tmp_path / "silent.ndjson").exists() and len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_file_of_lines_may_be_closed_while_others_write(tmp_path: Path) -> None:
    lines = LineFile(tmp_path / "l.ndjson")
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            lines.append('{"event":"x"}')

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    lines.close()
    lines.close()  # twice is once
    foreign = (tmp_path / "foreign").open("wb")
    done.wait(0.05)
    done.set()
    for thread in threads:
        thread.join()
    assert os.fstat(foreign.fileno()).st_size == 0
    foreign.close()
