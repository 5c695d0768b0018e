"""Tasks from outside and from held-out samples. An exam file is serialised Tasks: one JSON object a line.

Question and answers suffice; kind, document, context and grader may be said. Strict, because a typing error in an exam
is a wrong number in a report: unknown keys, blank answers, a question asked twice and broken lines are errors that name
file and line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gristmill.core.errors import InputError
from gristmill.core.files import atomic
from gristmill.core.records import Sample, Task
from gristmill.tasks.graders import GRADERS


class TaskLine(BaseModel):
    """What one line of an exam file may say."""

    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=True)

    question: str = Field(min_length=1)
    answers: list[str] = Field(min_length=1)
    kind: str = Field("short", min_length=1)
    document: str = ""
    context: str = ""
    grader: str = "short_answer"


def read_tasks(path: Path) -> list[Task]:
    """Every task of an exam file, in its order. Empty lines are allowed; an empty exam is not."""
    tasks: list[Task] = []
    asked: dict[str, int] = {}
    for number, line in _lines(path):
        task = _parse(line, where=f"{path.name}:{number}")
        first = asked.setdefault(question_key(task.question), number)
        if first != number:
            raise InputError(
                f"{path.name}:{number}: the same question as in line {first}", "Keep one of the two lines."
            )
        tasks.append(task)
    if not tasks:
        raise InputError(f"{path.name} holds no task", 'Write one a line: {"question": "…", "answers": ["…"]}')
    return tasks


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """The tasks as an exam file that `read_tasks` reads back to equal records (parents and marks aside)."""
    defaults = TaskLine(question="?", answers=["?"]).model_dump()
    with atomic(path) as file:
        for task in tasks:
            content = {k: v for k, v in task.content().items() if k not in defaults or v != defaults[k]}
            file.write(orjson.dumps(content) + b"\n")


def tasks_of(sample: Sample, *, context: str) -> list[Task]:
    """Every question of a chat sample as a task; its answer is the reference. Text samples ask nothing: no task."""
    document = sample.quotes[0].path if sample.quotes else ""
    pairs = zip(sample.messages, sample.messages[1:], strict=False)
    return [
        Task(
            question=asked.content.strip(),
            answers=(said.content.strip(),),
            kind=sample.kind,
            document=document,
            context=context,
            parents=(sample.id,),
        )
        for asked, said in pairs
        if asked.role == "user" and said.role == "assistant" and asked.content.strip() and said.content.strip()
    ]


def question_key(question: str) -> str:
    """Two questions with the same key are the same question: letters and digits alone count."""
    return " ".join("".join(c if c.isalnum() else " " for c in question.casefold()).split())


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read the exam {path}: {error.strerror}", "Give the path of a JSONL file.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"the exam {path.name} is not UTF-8", "Save it as UTF-8.") from error
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def _parse(line: str, *, where: str) -> Task:
    try:
        read = TaskLine.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{where}: {place + ': ' if place else ''}{first['msg']}",
            f"A line may hold {', '.join(TaskLine.model_fields)}; question and answers are needed.",
        ) from error
    if not all(map(question_key, read.answers)):
        raise InputError(f"{where}: an answer is blank or without a letter or digit", "Remove it or fill it in.")
    if read.grader not in GRADERS:
        raise InputError(f"{where}: no grader is called {read.grader}", f"Known: {', '.join(GRADERS)}.")
    return Task(**{**read.model_dump(), "answers": tuple(read.answers)})
