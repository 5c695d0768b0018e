"""PDF: pages, running heads, paragraphs, headings, hyphens; and pages that hold no text."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from tests.ingest.conftest import blocks_of

reportlab = pytest.importorskip("reportlab")
Read = Callable[..., Any]
BODY = (
    "The harbour of Varnholt was built in three stages by the guild of rope makers, whose seal hangs over the gate. "
    "Ships entered by the northern channel until the great storm moved the sand bank, and since then pilots take the "
    "inner way, which is narrow but safe at every tide. "
)


def book(pages: int = 8, **options: Any) -> bytes:
    """A typeset book: running head, page number, a chapter heading each page, justified wrapped text."""
    from reportlab.lib.utils import simpleSplit
    from reportlab.pdfgen.canvas import Canvas

    data = io.BytesIO()
    canvas = Canvas(data, pagesize=(400, 600), **options)
    canvas.setTitle("The Book of Varnholt")
    for number in range(1, pages + 1):
        canvas.setFont("Helvetica", 9)
        canvas.drawString(50, 575, f"The Book of Varnholt      {number}")
        canvas.drawCentredString(200, 20, f"Page {number} of {pages}")
        canvas.setFont("Helvetica-Bold", 18)
        canvas.drawString(50, 530, f"Chapter of {['stone', 'rope', 'sand', 'tide'][number % 4]}")
        canvas.setFont("Helvetica", 11)
        y = 500
        for paragraph in (f"On page {number} we begin. " + BODY, "A second paragraph. " + BODY):
            for line in simpleSplit(paragraph, "Helvetica", 11, 300):
                canvas.drawString(50, y, line)
                y -= 14
            y -= 12
        canvas.showPage()
    canvas.save()
    return data.getvalue()


def lines(*pages: list[str]) -> bytes:
    """Pages of plain lines, 14 points apart."""
    from reportlab.pdfgen.canvas import Canvas

    data = io.BytesIO()
    canvas = Canvas(data, pagesize=(400, 600))
    for page in pages:
        for at, line in enumerate(page):
            canvas.setFont("Helvetica", 11)
            canvas.drawString(50, 500 - 14 * at, line)
        canvas.showPage()
    canvas.save()
    return data.getvalue()


def test_book_reads_as_its_author_wrote_it(read_one: Read) -> None:
    document = read_one("a.pdf", book())
    blocks = blocks_of(document)
    assert document.title == "The Book of Varnholt"
    assert [p.number for p in document.pages] == list(range(1, 9))
    assert [kind for kind, _ in blocks] == ["heading", "paragraph", "paragraph"] * 8
    assert blocks[0][1] == "Chapter of rope"
    assert blocks[1][1] == f"On page 1 we begin. {BODY}".strip()
    assert "Page 3" not in document.text and "Book of" not in document.text
    third = document.pages[2]
    assert "On page 3 we begin" in document.text[third.start : third.end]


def test_heads_that_change_with_the_chapter_go_by_their_numbers(read_one: Read) -> None:
    from reportlab.pdfgen.canvas import Canvas

    data = io.BytesIO()
    canvas = Canvas(data, pagesize=(400, 600))
    for number, name in enumerate(("Ropes", "Sails", "Tar", "Oars", "Nets", "Nails", "Glue"), 1):
        canvas.drawString(50, 575, f"Of {name} {number + 20}")
        canvas.drawString(50, 500, f"{name} are made by hand.")
        canvas.showPage()
    canvas.save()
    text = read_one("a.pdf", data.getvalue()).text
    assert "Of " not in text and "Sails are made by hand." in text


def test_outline_names_the_headings(read_one: Read) -> None:
    from reportlab.pdfgen.canvas import Canvas

    data = io.BytesIO()
    canvas = Canvas(data, pagesize=(400, 600))
    for at, (title, level) in enumerate((("Harbour", 0), ("Pier", 1))):
        canvas.bookmarkPage(title)
        canvas.addOutlineEntry(title, title, level)
        canvas.drawString(50, 500, f"{at + 1}. {title}")
        canvas.drawString(50, 480, "Here is what is known of it.")
        canvas.drawString(50, 300, "......... 7")
        canvas.showPage()
    canvas.save()
    document = read_one("a.pdf", data.getvalue())
    assert [(document.text[b.start : b.end], b.level) for b in document.blocks if b.kind == "heading"] == [
        ("1. Harbour", 1),
        ("2. Pier", 2),
    ]
    assert "....." not in document.text


def test_words_cut_at_line_ends_are_whole_again(read_one: Read) -> None:
    page = [
        "The north-west pier of the old har-",
        "bour was the work of twelve north-",
        "west villages and stands to this day.",
    ]
    text = read_one("a.pdf", lines(page)).text
    assert "old harbour was" in text and "twelve north-west villages" in text


def test_columns_are_read_one_after_the_other(read_one: Read) -> None:
    from reportlab.lib.utils import simpleSplit
    from reportlab.pdfgen.canvas import Canvas

    data = io.BytesIO()
    canvas = Canvas(data, pagesize=(500, 700))
    canvas.setFont("Helvetica-Bold", 18)
    canvas.drawString(40, 620, "All about the harbour of the old town of Varnholt")
    canvas.setFont("Helvetica", 10)
    wrapped = [simpleSplit(f"{name} {BODY}", "Helvetica", 10, 200) for name in ("First.", "Second.")]
    for column in range(2):
        for at, line in enumerate([*wrapped[0], "", *wrapped[1]]):
            canvas.drawString(40 + 220 * column, 590 - 12 * at, line)
    canvas.showPage()
    canvas.save()
    blocks = blocks_of(read_one("a.pdf", data.getvalue()))
    assert blocks[0] == ("heading", "All about the harbour of the old town of Varnholt")
    assert [text for _, text in blocks[1:]] == [f"First. {BODY}".strip(), f"Second. {BODY}".strip()] * 2


def test_a_sentence_goes_on_over_the_page(read_one: Read) -> None:
    document = read_one("a.pdf", lines(["The ship left the harbour in the night and"], ["came back with the tide."]))
    assert document.text == "The ship left the harbour in the night and came back with the tide."
    assert document.text[document.pages[1].start :] == "came back with the tide."


def test_encrypted_truncated_and_too_long(read_one: Read) -> None:
    assert read_one("a.pdf", book(2, encrypt="secret")) == "encrypted file"
    assert read_one("b.pdf", book(2)[:300]) == "damaged pdf"
    assert read_one("c.pdf", book(6), max_pages=5) == "more than 5 pages"


def scan(text: str) -> Any:
    """A picture of a line of print."""
    from PIL import Image, ImageDraw, ImageFont
    from reportlab.lib.utils import ImageReader

    image = Image.new("L", (1400, 300), 255)
    ImageDraw.Draw(image).text((40, 100), text, fill=0, font=ImageFont.load_default(size=64))
    return ImageReader(image)


def scanned(*, with_text: bool) -> bytes:
    from reportlab.pdfgen.canvas import Canvas

    data = io.BytesIO()
    canvas = Canvas(data, pagesize=(500, 300))
    if with_text:
        canvas.drawString(50, 200, "This page was typed by a machine.")
        canvas.showPage()
    canvas.drawImage(scan("The lighthouse was built in 1873."), 20, 100, 450, 96)
    canvas.showPage()
    canvas.save()
    return data.getvalue()


@pytest.mark.skipif(not shutil.which("tesseract"), reason="tesseract is not installed")
def test_scans_are_read_by_tesseract(read_one: Read) -> None:
    document = read_one("a.pdf", scanned(with_text=True))
    assert document.text == "This page was typed by a machine.\n\nThe lighthouse was built in 1873."
    assert document.marks == {"pages_by_ocr": [2]}
    assert [p.number for p in document.pages] == [1, 2]


def test_pages_without_text_are_counted(read_one: Read) -> None:
    assert read_one("a.pdf", scanned(with_text=True), ocr=False).marks == {"pages_without_text": [2]}
    assert read_one("b.pdf", scanned(with_text=False), ocr=False) == "no text on any page"
