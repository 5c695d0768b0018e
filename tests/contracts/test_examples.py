"""The example world and its exam: whole, consistent, and the exam no copy of what the documents say."""

from __future__ import annotations

import importlib.util
import re
from collections import Counter
from functools import cache
from pathlib import Path
from types import ModuleType

import orjson
import pytest

from gristmill.core.records import Task

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FORMATS = {".md", ".html", ".docx", ".pdf", ".txt"}


@cache
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_documents", EXAMPLES / "build_documents.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def source(document: str) -> str:
    """The words of a document as they were written, without markup."""
    path = EXAMPLES / document
    assert path.is_file(), f"{document} is missing"
    match path.suffix:
        case ".docx":
            return str(builder().harbour_text())
        case ".pdf":
            return str(builder().railway_text())
        case ".html":
            main = path.read_text("utf-8").partition("<main>")[2].partition("</main>")[0]
            return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", main))
        case _:
            return path.read_text("utf-8")


def documents() -> list[str]:
    return sorted(f"documents/{p.name}" for p in (EXAMPLES / "documents").iterdir())


def exam() -> list[Task]:
    lines = (EXAMPLES / "exam.jsonl").read_bytes().splitlines()
    return [Task.model_validate(orjson.loads(line)) for line in lines]


def words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def grams(text: str, size: int) -> set[tuple[str, ...]]:
    found = words(text)
    return {tuple(found[i : i + size]) for i in range(len(found) - size + 1)}


def test_the_world_is_small_and_in_five_formats() -> None:
    assert {Path(d).suffix for d in documents()} == FORMATS
    assert 2300 <= sum(len(words(source(d))) for d in documents()) <= 2800


def test_the_exam_is_large_enough_and_covers_every_document() -> None:
    tasks = exam()
    assert len(tasks) >= 64
    per_document = Counter(task.document for task in tasks)
    assert per_document.keys() == set(documents())
    assert min(per_document.values()) >= 8


def test_no_question_is_asked_twice() -> None:
    assert [q for q, n in Counter(" ".join(words(task.question)) for task in exam()).items() if n > 1] == []


def test_every_answer_is_short_and_stands_in_its_document() -> None:
    for task in exam():
        first = task.answers[0]
        assert len(first.split()) <= 4, task.question
        assert re.search(rf"(?<!\w){re.escape(first)}(?!\w)", source(task.document)), f"{first!r}: {task.question}"
        assert all(a.strip() == a and a for a in task.answers)


def test_no_question_contains_its_answer() -> None:
    for task in exam():
        assert not any(set(words(a)) <= set(words(task.question)) for a in task.answers), task.question


def test_no_question_is_a_copy_of_a_sentence() -> None:
    known = set().union(*(grams(source(document), 8) for document in documents()))
    assert [task.question for task in exam() if grams(task.question, 8) & known] == []


def test_years_are_unique() -> None:
    years = [a for task in exam() for a in task.answers if re.fullmatch(r"1\d{3}", a)]
    assert len(years) == len(set(years)) >= 8


def test_the_built_documents_are_what_the_script_writes(tmp_path: Path) -> None:
    pytest.importorskip("reportlab", reason="building the PDF needs the dev extra")
    builder().main(tmp_path)
    for built in sorted(tmp_path.iterdir()):
        assert built.read_bytes() == (EXAMPLES / "documents" / built.name).read_bytes(), built.name
