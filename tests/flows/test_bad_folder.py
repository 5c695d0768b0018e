"""A folder of bad files through the command line: each is rejected with its reason or read right, and the run ends."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest
from tests.ingest.conftest import docx, w_p, zipped
from tests.runs.project import Project

NOISE = random.Random(11).randbytes(30_000)
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0" + NOISE[:200]
RIGHT_TO_LEFT = "الطاحونة قديمة. بناها هارم ديكر سنة ١٨٧٢."
CJK = "磨坊在港口旁边。它有三块磨石。"
UTF_16 = "The mill of Orvale has four sails. Ärger über Öl."

REJECTED: dict[str, tuple[bytes, str]] = {
    "empty.txt": (b"", "empty file"),
    "truncated.pdf": (b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R", "damaged pdf"),
    "truncated.docx": (docx(w_p("Cut."))[:400], "damaged archive"),
    "truncated.epub": (zipped({"mimetype": "application/epub+zip", "a.xhtml": NOISE})[:9000], "damaged archive"),
    "picture.txt": (PNG, "unknown binary file"),
    "bomb.docx": (docx(w_p("x"), {"word/media/zeros.bin": bytes(300_000_000)}), "archive bomb"),
    "climber.docx": (docx(w_p("x"), {"../../climbed.txt": b"x"}), "archive entry outside its folder"),
    "climber.epub": (
        zipped({"META-INF/container.xml": "<container/>", "../../climbed.txt": b"x"}),
        "archive entry outside its folder",
    ),
    "nuls.txt": (b"some\0words\0\0here" * 99, "unknown binary file"),
    "random.bin": (NOISE, "unknown binary file"),
    "random.pdf": (b"%PDF-1.4\n" + NOISE, "damaged pdf"),
    "nested.html": (b"<html><body><p>Top.</p>" + b"<div>" * 100_000 + b"deep", "nested too deeply"),
}


def encrypted_pdf() -> bytes:
    """A file whose trailer asks for a password that nobody has (standard handler, 40 bits, made-up keys)."""
    parts = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 99 99] >>",
        b"<< /Filter /Standard /V 1 /R 2 /P -4 /O <" + b"41" * 32 + b"> /U <" + b"42" * 32 + b"> >>",
    ]
    return pdf_of(parts, b" /Encrypt 4 0 R /ID [<" + b"43" * 16 + b"> <" + b"43" * 16 + b">]")


def pdf_with(text: str) -> bytes:
    stream = f"BT /F1 12 Tf 20 100 Td ({text}) Tj ET".encode()
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 400 200] /Contents 4 0 R"
    page += b" /Resources << /Font << /F1 5 0 R >> >> >>"
    parts = [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>", page]
    parts.append(b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream))
    parts.append(b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
    return pdf_of(parts, b"")


def pdf_of(parts: list[bytes], trailer: bytes) -> bytes:
    data, places = b"%PDF-1.4\n", []
    for number, part in enumerate(parts, 1):
        places.append(len(data))
        data += b"%d 0 obj\n%s\nendobj\n" % (number, part)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    head = b"xref\n0 %d\n0000000000 65535 f \n" % (len(parts) + 1)
    end = b"trailer\n<< /Size %d /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (len(parts) + 1, trailer, len(data))
    return data + head + table + end


READ: dict[str, tuple[bytes, str]] = {
    "utf-16.txt": (UTF_16.encode("utf-16"), UTF_16),
    "utf-16-without-mark.txt": (UTF_16.encode("utf-16-le"), UTF_16),
    "right-to-left.txt": (RIGHT_TO_LEFT.encode(), RIGHT_TO_LEFT),
    "cjk.md": (CJK.encode(), CJK),
    "pdf-by-another-name.html": (pdf_with("The mill of Tessmoor."), "The mill of Tessmoor."),
    "good.md": (b"# Orvale\n\nOrvale has ten bridges.", "Orvale\n\nOrvale has ten bridges."),
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "project")
    stages: dict[str, Any] = dict.fromkeys(("facts", "cloze", "clean"))
    stages["chunks"] = {"tokens": 2000}
    project.folder.mkdir()
    project.recipe("http://127.0.0.1:9/v1", models={}, stages=stages)
    return project


def fill(project: Project, contents: dict[str, tuple[bytes, str]]) -> Path:
    folder = project.folder / "documents"
    folder.mkdir()
    for name, (data, _) in contents.items():
        (folder / name).write_bytes(data)
    return folder


def reasons(project: Project, outcome: dict[str, Any]) -> dict[str, str]:
    rows = [row for stage in ("read.files", "read") for row in project.rejects(outcome, stage)]
    return {json.loads(row["body"])["path"].partition("/")[2]: row["reason"] for row in rows}


def beside(project: Project) -> set[str]:
    """Everything that lies around the workspace."""
    found = project.folder.parent.rglob("*")
    return {str(p) for p in found if not p.is_relative_to(project.workspace)}


def test_every_bad_file_has_its_reason_and_every_odd_one_is_read(project: Project) -> None:
    folder = fill(project, REJECTED | READ)
    (folder / "encrypted.pdf").write_bytes(encrypted_pdf())
    (folder / "one-line.txt").write_bytes(b"the long line goes on and on, " * 270_000)
    (project.folder / "secret.txt").write_text("Nobody may read this.")
    (folder / "escape.txt").symlink_to("../secret.txt")
    os.mkfifo(folder / "pipe.txt")
    before, started = beside(project), time.monotonic()
    outcome = project.go()
    assert time.monotonic() - started < 60
    assert outcome["state"] == "finished" and beside(project) == before
    assert reasons(project, outcome) == {name: reason for name, (_, reason) in REJECTED.items()} | {
        "encrypted.pdf": "encrypted file",
        "escape.txt": "link out of the folder",
        "pipe.txt": "not a plain file",
    }
    texts = {
        b["path"].partition("/")[2]: b["text"] for r in project.records(outcome, "read") if (b := json.loads(r["body"]))
    }
    assert len(texts.pop("one-line.txt")) > 8_000_000
    assert texts == {name: text for name, (_, text) in READ.items()}
    assert not any("Nobody may read" in row["body"] for row in project.records(outcome, "chunks"))


def test_nothing_but_bad_files_is_an_input_error(project: Project) -> None:
    fill(project, REJECTED)
    before = beside(project)
    outcome = project.go(code=3)
    assert outcome["state"] == "failed" and "stage read gave nothing" in outcome["error"]
    assert "unknown binary file (3)" in outcome["hint"] and beside(project) == before
    assert reasons(project, outcome) == {name: reason for name, (_, reason) in REJECTED.items()}
