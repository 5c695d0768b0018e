"""Each format read through the pool: structure, text and pages as a person would copy them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from tests.ingest.conftest import blocks_of, docx, w_p, w_table, zipped

from gristmill.core.records import Document

Read = Callable[..., Any]


def test_markdown_structure(read_one: Read) -> None:
    source = (
        b"---\ntitle: 'Tide book'\n---\n# The Harbour\n\nThe pier is\n42 m long.\n\n- one\n- two\n  - deep\n\n"
        b"| Name | Height |\n|---|---|\n| Oak | 3 m |\n\n```\ncode  x\n  y\n```\n\n## Ends\n\nLast *word*.\n"
    )
    document = read_one("a.md", source)
    assert document.title == "Tide book"
    assert blocks_of(document) == [
        ("heading", "The Harbour"),
        ("paragraph", "The pier is 42 m long."),
        ("list", "- one\n- two\n  - deep"),
        ("table", "Name: Oak; Height: 3 m"),
        ("code", "code  x\n  y"),
        ("heading", "Ends"),
        ("paragraph", "Last word."),
    ]
    assert [b.level for b in document.blocks if b.kind == "heading"] == [1, 2]


SENTENCES = " ".join(f"The keeper of lamp {n} walks to the tower at dusk and lights it with care." for n in range(60))
MENU = "<ul>" + "".join(f'<li><a href="/{n}">Menu entry {n}</a></li>' for n in range(30)) + "</ul>"


@pytest.mark.parametrize(
    "page",
    [
        f"<nav>{MENU}</nav><main><h1>Lamps</h1><p>{SENTENCES}</p></main><footer>Copyright of Menu entry</footer>",
        f"<div class=menu>{MENU}</div><div class=content><h1>Lamps</h1><p>{SENTENCES}</p><p>{SENTENCES}</p></div>",
        f"<div>{MENU}</div><h1>Lamps</h1><p>The keeper of lamp 3 walks.</p>",
        f"<header><nav>{MENU}</nav><h1>Lamps</h1></header><p>The keeper of lamp 3 walks.</p>",
    ],
    ids=["main", "extracted", "short", "header"],
)
def test_html_has_main_content_and_no_menu(read_one: Read, page: str) -> None:
    blocks = blocks_of(read_one("a.html", f"<html><title>T</title><body>{page}</body></html>".encode()))
    assert blocks[0] == ("heading", "Lamps")
    assert "The keeper of lamp 3 walks" in blocks[1][1]
    assert not any("Menu entry" in text for _, text in blocks)


def test_html_tables_lists_and_definitions(read_one: Read) -> None:
    page = (
        "<main><h2>Rows</h2><table><tr><th>Name<th>Year</tr><tr><td>Oak<td>1872</tr></table>"
        "<dl><dt>ebb</dt><dd>falling water</dd></dl><p>a<br>b<ol><li>x<li>y</ol><pre>k\n  v</pre></main>"
    )
    assert blocks_of(read_one("a.htm", page.encode())) == [
        ("heading", "Rows"),
        ("table", "Name: Oak; Year: 1872"),
        ("list", "- ebb: falling water"),
        ("paragraph", "a b"),
        ("list", "1. x\n2. y"),
        ("code", "k\n  v"),
    ]


def test_code_in_a_sentence_is_no_block_where_its_line_is_broken(read_one: Read) -> None:
    page = "<main><p>As a <code>ZERO WIDTH\nNO-BREAK SPACE</code> it is plain.</p><pre>a = 1\nb = 2</pre></main>"
    assert blocks_of(read_one("a.html", page.encode())) == [
        ("paragraph", "As a ZERO WIDTH NO-BREAK SPACE it is plain."),
        ("code", "a = 1\nb = 2"),
    ]


def test_html_of_navigation_alone_is_rejected(read_one: Read) -> None:
    assert read_one("a.html", f"<html><body><nav>{MENU}</nav></body></html>".encode()) == "no main content found"


@pytest.mark.parametrize("meta", ["", '<meta charset="windows-1252">'])
def test_html_in_windows_1252(read_one: Read, meta: str) -> None:
    page = f"<html><head>{meta}</head><body><main><p>Der Müller – “schön” für 5 €.</p></main></body></html>"
    assert read_one("a.html", page.encode("cp1252")).text == "Der Müller – “schön” für 5 €."


def test_docx_headings_tables_and_title(read_one: Read) -> None:
    body = (
        w_p("Mill", "Heading1")
        + w_p("The mill has two stones.")
        + w_table(["Stone", "Weight", "Maker"], ["Upper", "900 kg", "Brandt"], ["Lower", "1100 kg", "Voss"])
        + w_table(["Founded", "1872"])
    )
    core = '<c:p xmlns:c="x" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>Mill book</dc:title></c:p>'
    document = read_one("a.docx", docx(body, {"docProps/core.xml": core}))
    assert document.title == "Mill book"
    assert blocks_of(document) == [
        ("heading", "Mill"),
        ("paragraph", "The mill has two stones."),
        ("table", "Stone: Upper; Weight: 900 kg; Maker: Brandt\nStone: Lower; Weight: 1100 kg; Maker: Voss"),
        ("table", "Founded: 1872"),
    ]


def test_pptx_slides_are_pages(read_one: Read) -> None:
    from pptx import Presentation
    from pptx.util import Inches

    deck = Presentation()
    for title, text in (("First", "One line"), ("Second", "Other line")):
        slide = deck.slides.add_slide(deck.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
    slide.notes_slide.notes_text_frame.text = "Say it slowly."
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for at, text in enumerate(("Name", "Year", "Oak", "1872")):
        table.cell(at // 2, at % 2).text = text
    data = io.BytesIO()
    deck.save(data)
    document = read_one("a.pptx", data.getvalue())
    assert blocks_of(document) == [
        ("heading", "First"),
        ("paragraph", "One line"),
        ("heading", "Second"),
        ("paragraph", "Other line"),
        ("table", "Name: Oak; Year: 1872"),
        ("paragraph", "Say it slowly."),
    ]
    assert [p.number for p in document.pages] == [1, 2]
    assert document.text[document.pages[1].start :].startswith("Second")


def test_xlsx_sheets_and_rows(read_one: Read) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "Ships"
    for row in (["Fleet of 1901"], ["Name", "Tons"], ["Alma", 300.0], ["Berta", 12.5]):
        book.active.append(row)
    book.create_sheet("Hidden").sheet_state = "hidden"
    data = io.BytesIO()
    book.save(data)
    assert blocks_of(read_one("a.xlsx", data.getvalue())) == [
        ("heading", "Ships"),
        ("table", "Fleet of 1901"),
        ("table", "Name: Alma; Tons: 300\nName: Berta; Tons: 12.5"),
    ]


def test_epub_follows_its_spine(read_one: Read) -> None:
    page = '<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><body>{}</body></html>'
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf" xmlns:dc="http://purl.org/dc/elements/1.1/">'
        "<metadata><dc:title>Tales</dc:title></metadata><manifest>"
        '<item id="n" href="nav.xhtml" properties="nav"/><item id="b" href="b.xhtml"/><item id="a" href="a%20a.xhtml"/>'
        '</manifest><spine><itemref idref="n"/><itemref idref="b"/><itemref idref="a"/></spine></package>'
    )
    ocf = "urn:oasis:names:tc:opendocument:xmlns:container"
    book = zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": f'<container xmlns="{ocf}"><rootfile full-path="O/p.opf"/></container>',
            "O/p.opf": package,
            "O/nav.xhtml": page.format("<p>Contents</p>"),
            "O/a a.xhtml": page.format("<h1>Second</h1><p>Ende gut.</p>"),
            "O/b.xhtml": page.format("<h1>First</h1><p>Es war einmal.</p>"),
        }
    )
    document = read_one("a.epub", book)
    assert document.title == "Tales"
    assert [text for _, text in blocks_of(document)] == ["First", "Es war einmal.", "Second", "Ende gut."]


def test_csv_names_its_columns(read_one: Read) -> None:
    document = read_one("a.csv", "Name;Größe\nAlma;3\n\nBerta;4\n".encode("cp1252"))
    assert blocks_of(document) == [("table", "Name: Alma; Größe: 3\nName: Berta; Größe: 4")]


def test_a_cell_of_csv_may_be_long(read_one: Read) -> None:
    document = read_one("a.csv", f"Name,Text\nAlma,{'word ' * 40_000}\nBerta,short\n".encode())
    assert sum(text.count("word") for _, text in blocks_of(document)) == 40_000


def test_jsonl_text_fields(read_one: Read) -> None:
    rows = b'{"text": "First.", "id": "1"}\n{"name": "Alma", "home": "Oslo", "n": 3}\n'
    assert [t for _, t in blocks_of(read_one("a.jsonl", rows))] == ["First.", "name: Alma; home: Oslo"]
    assert read_one("b.jsonl", rows, text_field="text") == "jsonl line without the text field text"
    assert read_one("c.jsonl", b'{"text": "a"}\n{broken\n') == "damaged jsonl"


def test_txt_paragraphs_lists_and_headings(read_one: Read) -> None:
    text = """The Mill
========

The mill stands on the river bank and has worked there for
more than two hundred years now without a pause, say
the people.

2.1 Stones

- upper stone of
  granite
- lower stone

Roses are red
Violets
"""
    paragraph = (
        "The mill stands on the river bank and has worked there for more than two hundred years now without a pause"
    )
    assert blocks_of(read_one("a.txt", text.encode())) == [
        ("heading", "The Mill"),
        ("paragraph", f"{paragraph}, say the people."),
        ("heading", "2.1 Stones"),
        ("list", "- upper stone of granite\n- lower stone"),
        ("paragraph", "Roses are red\nViolets"),
    ]


def test_txt_headings_that_nothing_marks(read_one: Read) -> None:
    prose = "The lens was ground in the old town and carried up the stairs by nine men and a mule in a single night."
    document = read_one("a.txt", f"SKORRO LIGHT\nNotes\n\nThe lamp\n\n{prose}\n\nYours\n\nA. Holm\n".encode())
    assert [(document.text[b.start : b.end], b.kind, b.level) for b in document.blocks] == [
        ("SKORRO LIGHT", "heading", 1),
        ("Notes", "paragraph", 0),
        ("The lamp", "heading", 2),
        (prose, "paragraph", 0),
        ("Yours", "paragraph", 0),
        ("A. Holm", "paragraph", 0),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_encodings(read_one: Read, encoding: str) -> None:
    text = "Größe und Maß: der Café-Besitzer zahlt 5 € – “genau”. Naïve Übung."
    assert read_one("a.txt", text.encode(encoding)).text == text


@pytest.mark.parametrize(
    ("text", "encoding", "language"),
    [
        ("Мельница стоит на берегу реки уже двести лет. Хозяин живёт рядом с ней.", "cp1251", "ru"),
        ("水車小屋は川のほとりに立っています。主人はその隣に住んでいます。", "shift_jis", "ja"),
        ("הטחנה עומדת על גדת הנהר. בעל הטחנה גר לידה.", "utf-8", "he"),
        ("磨坊坐落在河边。磨坊主住在旁边。", "utf-16", "zh"),
        ("Die Mühle steht seit zweihundert Jahren am Fluss. Der Müller wohnt daneben.", "latin-1", "de"),
    ],
)
def test_scripts_and_languages(read_one: Read, text: str, encoding: str, language: str) -> None:
    document = read_one("a.txt", text.encode(encoding))
    assert isinstance(document, Document), document
    assert (document.text, document.language) == (text, language)


def test_language_can_be_given(read_one: Read) -> None:
    assert read_one("a.txt", b"Hm.", language="sv").language == "sv"
    assert read_one("a.txt", b"1 2 3").language == "und"


def test_content_decides_before_the_name(read_one: Read) -> None:
    page = b"<!DOCTYPE html><html><body><main><p>Really a page.</p></main></body></html>"
    assert read_one("a.pdf", page).media_type == "text/html"
    assert read_one("b.docx", b"Just words.") == "not a docx file"
    assert read_one("c.txt", docx(w_p("Word inside."))).text == "Word inside."
