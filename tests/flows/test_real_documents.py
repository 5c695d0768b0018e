"""Real documents: a PDF manual of more than 100 pages and a tree of real HTML pages, with a limit on what is used.

Calls are counted at the server. Took 9 s on two busy cores: 4 s the first run (245 pages of PDF, 17 files of
HTML, 163 calls), 0.5 s a run that only shows the finished one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.fixtures import FakeServer, fake_server
from tests.runs.project import Project

from gristmill.core.events import read_events

MANUAL = Path("/usr/share/debian-reference/debian-reference.en.pdf")
PAGES = Path("/usr/share/doc/python3.11/html/tutorial")
MISSING = [name for name, path in {"debian-reference-en": MANUAL, "python3.11-doc": PAGES}.items() if not path.exists()]
CHUNKS = 60
OWN_PROMPT = "@system\nBe exact.\n@user\n{{place}}\n{{sentences}}\n{{count}} {{language}}"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"real documents are not installed: apt install {' '.join(MISSING)}"),
]


def write_recipe(project: Project, fake: FakeServer, **facts: Any) -> None:
    project.recipe(
        fake.url,
        stages={
            "chunks": {"tokens": 300},
            "subset": {"kind": "ingest.subset", "chunks": CHUNKS, "needs": ["chunks"]},
            "facts": {"needs": ["subset"], **facts},
            "questions": {"kind": "generate.qa", "model": "writer", "needs": ["facts"], "max_failures": 1.0},
            "clean": {"needs": ["cloze", "questions"]},
        },
    )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    documents = project.folder / "documents"
    documents.mkdir()
    shutil.copy(MANUAL, documents / "manual.pdf")
    shutil.copytree(PAGES, documents / "tutorial", symlinks=False)
    return project


def bodies(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [json.loads(row["body"]) for row in rows]


def reused(outcome: dict[str, Any]) -> set[str]:
    events = read_events(Path(outcome["folder"]) / "events.ndjson")
    return {event["stage"] for event in events if event["event"] == "stage.reused"}


def check_places(project: Project, outcome: dict[str, Any]) -> None:
    """Every chunk and quote is its document's text at its place, with its pages where the document has pages."""
    documents = {d["path"]: d for d in bodies(project.records(outcome, "read"))}
    manual = documents["documents/manual.pdf"]
    assert len(manual["pages"]) > 100 and len(documents) > 15
    quotes = [fact["quote"] for fact in bodies(project.records(outcome, "facts"))]
    quotes += [quote for sample in bodies(project.records(outcome, "clean")) for quote in sample["quotes"]]
    chunks = bodies(project.records(outcome, "subset"))
    assert len(chunks) == CHUNKS and {c["path"] for c in chunks} >= {"documents/manual.pdf"} and quotes
    for piece in [*chunks, *quotes]:
        document = documents[piece["path"]]
        assert document["text"][piece["start"] : piece["end"]] == piece["text"]
        touched = [p["number"] for p in document["pages"] if p["start"] < piece["end"] and piece["start"] < p["end"]]
        assert piece["pages"] == touched and bool(touched) == (document is manual)


def test_real_documents_cost_what_they_must_and_no_more(project: Project) -> None:
    with fake_server() as fake:
        write_recipe(project, fake)
        first = project.go()
        facts = project.records(first, "facts")
        check_places(project, first)
        assert fake.stats()["calls"] == first["spent"]["calls"] == len(asked(project, first)) + len(facts)

        fake.reset()
        assert (took := fastest(project.go)) <= 2.0, took
        assert fake.stats()["calls"] == 0

        (project.folder / "documents" / "more.html").write_bytes((PAGES.parent / "whatsnew" / "3.11.html").read_bytes())
        more = project.go()
        new = asked(project, more) - asked(project, first)
        facts = [f for f in bodies(project.records(more, "facts")) if f["quote"]["path"] == "documents/more.html"]
        assert new and facts and fake.stats()["calls"] == len(new) + len(facts)

        fake.reset()
        project.write("mine.md", OWN_PROMPT)
        write_recipe(project, fake, prompts={"facts": "mine.md"})
        other = project.go()
        assert reused(other) == {"read.files", "read", "chunks", "subset"}
        assert other["funnel"]["facts"]["more"]["calls"] == len(asked(project, other))


def asked(project: Project, outcome: dict[str, Any]) -> set[str]:
    """The chunks that a model was asked about: one of nothing but code has no sentence to ask about."""
    silent = [row["id"] for row in project.rejects(outcome, "facts") if row["reason"] == "no sentence"]
    return {json.loads(r["body"])["text"] for r in project.records(outcome, "subset") if r["id"] not in silent}


def fastest(run: Callable[[], dict[str, Any]]) -> float:
    """The shortest of three runs of a finished recipe: wall time of the whole command."""
    times = []
    for _ in range(3):
        started = time.monotonic()
        assert run()["state"] == "shown"
        times.append(time.monotonic() - started)
    return min(times)
