"""Exam files: strict, exact about where they are wrong, and the same after writing and reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.core.errors import InputError
from gristmill.core.records import Message, Quote, Sample, Task
from gristmill.tasks.task import read_tasks, tasks_of, write_tasks


def exam(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "exam.jsonl"
    path.write_text(text, "utf-8")
    return path


def test_question_and_answers_suffice(tmp_path: Path) -> None:
    path = exam(
        tmp_path, '\ufeff{"question": "Who?", "answers": ["Mara"]}\n\n{"question": "When?", "answers": ["1842"]}'
    )
    assert read_tasks(path) == [Task(question="Who?", answers=("Mara",)), Task(question="When?", answers=("1842",))]


def test_written_tasks_read_back_equal(tmp_path: Path) -> None:
    tasks = [
        Task(question="Who?", answers=("Mara", "Venn"), kind="person", document="a.md", context="Mara.\nVenn."),
        Task(question="Wann?", answers=("ü\u2028x",)),
    ]
    path = tmp_path / "out.jsonl"
    write_tasks(path, tasks)
    assert read_tasks(path) == tasks


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"question": "Who?"}', "answers"),
        ('{"question": "", "answers": ["a"]}', "question"),
        ('{"question": "Who?", "answers": []}', "answers"),
        ('{"question": "Who?", "answers": ["a", " "]}', "blank"),
        ('{"question": "Who?", "answers": ["…"]}', "blank"),
        ('{"question": "Who?", "answers": "a"}', "answers"),
        ('{"question": "Who?", "answers": [1842]}', "answers"),
        ('{"question": "Who?", "answers": ["a"], "anwser": "b"}', "anwser"),
        ('{"question": "Who?", "answers": ["a"], "grader": "vibes"}', "vibes"),
        ('{"question": "who", "answers": ["a"]}\n{"question": "Who?", "answers": ["b"]}', "same question as in line 2"),
        ("{", "JSON"),
        ("[]", ""),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, line: str, says: str) -> None:
    path = exam(tmp_path, '{"question": "First?", "answers": ["a"]}\n' + line)
    with pytest.raises(InputError) as error:
        read_tasks(path)
    assert f"exam.jsonl:{2 + line.count(chr(10))}" in error.value.message
    assert says in error.value.message


def test_empty_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no task"):
        read_tasks(exam(tmp_path, "\n"))
    with pytest.raises(InputError, match="cannot read"):
        read_tasks(tmp_path / "missing.jsonl")
    (tmp_path / "latin.jsonl").write_bytes('{"question": "Wér?"}'.encode("latin-1"))
    with pytest.raises(InputError, match="UTF-8"):
        read_tasks(tmp_path / "latin.jsonl")


def test_every_question_of_a_held_out_chat_is_a_task() -> None:
    quote = Quote(text="Mara, 1842", start=0, end=10, path="guild.md")
    turns = [("system", "Be brief."), ("user", "Who?"), ("assistant", "Mara"), ("user", "When?"), ("assistant", "1842")]
    sample = Sample(
        form="chat",
        kind="qa",
        messages=tuple(Message(role=role, content=text) for role, text in turns),  # type: ignore[arg-type]
        quotes=(quote,),
    )
    tasks = tasks_of(sample, context="Mara, 1842")
    assert [(t.question, t.answers, t.document, t.kind, t.parents) for t in tasks] == [
        ("Who?", ("Mara",), "guild.md", "qa", (sample.id,)),
        ("When?", ("1842",), "guild.md", "qa", (sample.id,)),
    ]
    assert tasks_of(Sample(form="text", kind="passage", text="Mara"), context="") == []
