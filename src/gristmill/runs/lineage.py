"""Lineage: from any record back to the page and the prompt it came from, and on to the exam questions it served."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.core.errors import InputError
from gristmill.core.records import Chunk, Document, Draft, Fact, File, Quote, Record, Sample, Score, Task
from gristmill.core.store import Store
from gristmill.runs.folder import RunFolder
from gristmill.tasks.graders.short_answer import find
from gristmill.tasks.graders.words import read_words


@dataclass
class Link:
    """A record in a lineage, the stage that gave it last, and what it came from."""

    record: Record
    stage: str
    parents: list[Link] = field(default_factory=list)


class Lineage:
    """All records of a run, by id, with who came from whom."""

    def __init__(self, folder: RunFolder) -> None:
        self.records: dict[str, tuple[str, Record]] = {}
        self.children: dict[str, list[str]] = {}
        for stage, output in folder.outputs().items():
            for record in output:
                if record.id not in self.records:
                    for parent in record.parents:
                        self.children.setdefault(parent, []).append(record.id)
                self.records[record.id] = (stage, record)

    def find(self, start: str) -> Record:
        """The record whose id begins so."""
        hits = [record for record_id, (_, record) in self.records.items() if record_id.startswith(start)]
        if len(hits) != 1:
            said = "no record's id begins" if not hits else f"{len(hits)} records' ids begin"
            raise InputError(f"{said} with {start}", "List ids with `gristmill show RUN records`.")
        return hits[0]

    def back(self, record: Record) -> Link:
        """The record and all it came from."""
        stage = self.records[record.id][0]
        known = [self.records[p][1] for p in record.parents if p in self.records]
        return Link(record, stage, [self.back(parent) for parent in known])

    def on(self, record: Record) -> Iterator[Record]:
        """Everything that came from it, nearest first."""
        left, seen = [record.id], {record.id}
        while left:
            for child in self.children.get(left.pop(0), []):
                if child not in seen:
                    seen.add(child)
                    left.append(child)
                    yield self.records[child][1]

    def exam(self, record: Record) -> list[Task]:
        """The exam questions about what this record says: those made from it, and those whose answer it teaches."""
        made = [r for r in (record, *self.on(record)) if isinstance(r, Task)]
        quotes = _quotes(record)
        asked = [t for _, t in self.records.values() if isinstance(t, Task) and any(_answers(t, q) for q in quotes)]
        return list({t.id: t for t in [*made, *asked]}.values())

    def teachers(self, task: Task) -> list[Sample]:
        """The samples whose sources hold the answer to an exam question."""
        samples = [r for _, r in self.records.values() if isinstance(r, Sample)]
        return [s for s in samples if any(_answers(task, q) for q in s.quotes)]

    def scores(self, task: Task) -> dict[str, Score]:
        """How each arm did on a question."""
        episodes = {r.id: r for r in self.on(task) if r.type == "episode"}
        found = [r for r in self.on(task) if isinstance(r, Score)]
        return {getattr(episodes[s.parents[0]], "arm", "?"): s for s in found if s.parents[0] in episodes}


def _quotes(record: Record) -> list[Quote]:
    if isinstance(record, Sample):
        return list(record.quotes)
    if isinstance(record, Fact):
        return [record.quote]
    if isinstance(record, Chunk):
        return [Quote(text=record.text, start=record.start, end=record.end, path=record.path, pages=record.pages)]
    return []


def _answers(task: Task, quote: Quote) -> bool:
    """Whether a source holds the answer to a question: same document, and the answer whole, as a grader reads it."""
    same = not task.document or Path(task.document).name == Path(quote.path).name
    words = read_words(quote.text)
    return same and any(find(read_words(answer), words) for answer in task.answers)


def describe(record: Record) -> str:
    """One line about a record, for people."""
    where = ""
    if isinstance(record, Chunk):
        where = f" {record.path}{_pages(record.pages)} [{record.start}:{record.end}] {' > '.join(record.headings)}"
    elif isinstance(record, Document | File):
        where = f" {record.path}"
    elif isinstance(record, Fact):
        where = f" {record.statement}"
    elif isinstance(record, Task):
        where = f" {record.question}"
    elif isinstance(record, Sample):
        text = f"{record.question} → {record.answer}" if record.messages else record.text
        where = f" {record.kind}: {' '.join(text.split())[:140]}"
    elif isinstance(record, Draft):
        text = " · ".join(f"{name}: {value}" for name, value in record.data.items())
        where = f" {record.kind}: {' '.join(text.split())[:140]}"
    return f"{record.type} {record.id}{where}"


def _pages(pages: tuple[int, ...]) -> str:
    return f" p. {pages[0]}" + (f"–{pages[-1]}" if pages[-1] != pages[0] else "") if pages else ""


def lineage_json(folder: RunFolder, store: Store, start: str) -> dict[str, Any]:
    """A record's whole lineage as plain data; `calls` holds the stored requests and answers it was made from."""
    lineage = Lineage(folder)
    record = lineage.find(start)

    def tree(link: Link) -> dict[str, Any]:
        origin = link.record.origin
        return {
            "id": link.record.id,
            "type": link.record.type,
            "stage": link.stage,
            "summary": describe(link.record),
            "origin": origin.model_dump(mode="json") if origin else None,
            "quotes": [q.model_dump(mode="json") for q in _quotes(link.record) if not isinstance(link.record, Chunk)],
            "calls": store.calls(list(origin.calls)) if origin else [],
            "parents": [tree(parent) for parent in link.parents],
        }

    def question(task: Task) -> dict[str, Any]:
        scores = {arm: score.value for arm, score in lineage.scores(task).items()}
        return {"id": task.id, "question": task.question, "answers": task.answers, "scores": scores}

    return {
        "record": record.model_dump(mode="json"),
        "back": tree(lineage.back(record)),
        "on": [describe(r) for r in lineage.on(record)],
        "exam": [question(task) for task in lineage.exam(record)],
        "taught_by": [describe(s) for s in lineage.teachers(record)] if isinstance(record, Task) else [],
    }
