"""Questions that no training sample may ask: of exam files, and of benchmarks in any table that holds questions."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq

from gristmill.core.cells import read_named
from gristmill.core.errors import InputError
from gristmill.core.records import Record, Sample, Task
from gristmill.curate.words import WORD, fold, words

QUESTION = ("question", "prompt", "problem", "instruction", "query", "input", "text")
ANSWER = ("answers", "answer", "solution", "target", "output", "completion")
"""Columns that hold a question, or its answer; the first of them that a row has."""

CHOICES = ("choices", "options")
"""Columns of what is to be chosen from: beside them an answer is a number or a letter, and says nothing by itself."""


@dataclass(frozen=True)
class Asked:
    """A question of a benchmark, and what an answer to it must hold."""

    text: str
    where: str  # file and line, or the id of a sample
    answers: tuple[str, ...] = ()

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(words(self.text))

    @cached_property
    def names(self) -> frozenset[str]:
        return names_in(self.text)


def names_in(text: str) -> frozenset[str]:
    """Folded words that are written with a capital, but for the first."""
    return frozenset(fold(hit[0]) for n, hit in enumerate(WORD.finditer(text)) if n and hit[0][0].isupper())


def read_benchmark(path: Path, column: str | None = None) -> Iterator[Asked]:
    """Every question of a file: jsonl, json, csv, tsv or parquet with a column of questions, or text, one a line.

    `column` names the column of questions where it has none of the usual names. A file without a question is an error:
    it would guard nothing."""
    found = 0
    for number, row in _rows(path):
        name = column or next((name for name in QUESTION if row.get(name)), "")
        question = str(row.get(name) or "")
        if not words(question):
            has = f"Row {number}: {', '.join(map(str, row)) or 'nothing'}. Name its column of questions in `column`."
            raise InputError(f"{path.name} has a row without a question", has)
        found += 1
        yield Asked(question, f"{path.name}:{number}", tuple(_answers(row)))
    if not found:
        raise InputError(f"{path.name} holds no question", "Give a benchmark's file, or leave it out.")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        yield from enumerate(_read(path), 1)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"the benchmark {path.name} cannot be read: {error}", "Give jsonl, csv or parquet.") from error


def _read(path: Path) -> Iterable[dict[str, Any]]:
    kind = path.suffix.lower()
    if kind == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    text = path.read_text("utf-8-sig")
    if kind in (".csv", ".tsv"):
        return read_named(text, delimiter="\t" if kind == ".tsv" else ",")
    lines = [line for line in text.split("\n") if line.strip()]
    if kind in (".jsonl", ".ndjson"):
        return [_row(orjson.loads(line)) for line in lines]
    if kind == ".json":
        data = orjson.loads(text)
        return [_row(row) for row in data] if isinstance(data, list) else [_row(data)]
    return [{"question": line} for line in lines]


def _row(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {"question": value}


def _answers(row: dict[str, Any]) -> Iterator[str]:
    if any(row.get(name) for name in CHOICES):
        return
    value = next((row[name] for name in ANSWER if row.get(name)), None)
    yield from (str(each) for each in (value if isinstance(value, list) else [value]) if each is not None)


def held_out(records: Iterable[Record]) -> Iterator[Asked]:
    """What an exam of this run will ask of its own records: tasks, and the questions of samples marked `test`."""
    for record in records:
        if isinstance(record, Task):
            yield Asked(record.question, f"task {record.id}", record.answers)
        elif isinstance(record, Sample) and record.marks.get("split") == "test":
            where, turns = f"test sample {record.id}", (*record.messages, *record.chosen)
            if record.form == "labelled":
                yield Asked(record.text, where, (record.label,))
            for asked, said in pairwise(turns):
                if asked.role == "user" and said.role == "assistant" and words(asked.content):
                    yield Asked(asked.content, where, (said.content,))
