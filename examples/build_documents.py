"""Writes the two example documents that are not plain text: `railway.pdf` and `harbour-regulations.docx`.

The words live here; the built files are committed beside the others, so that nobody needs reportlab to run the demo.
The same words give the same bytes: dates, identifiers and the order of archive members are fixed.

    python examples/build_documents.py [FOLDER]
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

RAILWAY_TITLE = "The Orvelsay Railway"
RAILWAY_HEAD = "The Orvelsay Railway: A Handbook for Passengers"
RAILWAY: list[tuple[str, list[str]]] = [
    (
        "The line",
        [
            "The Orvelsay Railway opened in 1887. The founder of the Orvelsay Railway was Lady Averil Thrupple, who "
            "sold her pearls to pay for the rails. The Orvelsay Railway runs from Drevock to Sillingoe.",
            "The line of the Orvelsay Railway is 13 miles long. The rails of the Orvelsay Railway lie 700 millimetres "
            "apart. The Orvelsay Railway has 5 stations. The smallest station of the Orvelsay Railway is Fennel Halt, "
            "where a train stops only if a passenger rings a bell.",
            "The Orvelsay Railway passes under Hobbard Tump in Wimmet Tunnel. Wimmet Tunnel is 460 metres long. It "
            "took the diggers of Wimmet Tunnel three winters to meet in the middle.",
            "The Orvelsay Railway crosses the river Tesk on Larch Viaduct. Larch Viaduct has 9 arches. In spite of its "
            "name, Larch Viaduct is built of slate.",
        ],
    ),
    (
        "Engines and carriages",
        [
            "The oldest engine of the Orvelsay Railway is the Marnabelle. The Marnabelle was built in Turin and came "
            "to Orvelsay on a barge. The engines of the Orvelsay Railway burn peat. The peat is cut on the moor above "
            "Undlemere.",
            "The second engine of the Orvelsay Railway is the Stout Betony. The Stout Betony pulls the milk train "
            "before dawn.",
            "The carriages of the Orvelsay Railway are painted mustard yellow. The seats of the carriages are stuffed "
            "with horsehair. A stove stands in the last carriage from October to April.",
        ],
    ),
    (
        "People of the railway",
        [
            "The stationmaster of Drevock is Oswin Pardle. Oswin Pardle winds the station clock with a key that hangs "
            "around his neck. The driver of the Marnabelle is Jessamy Rook. Jessamy Rook learned to drive from her "
            "grandfather.",
            "The workshop of the Orvelsay Railway stands in Sillingoe. The chief of the workshop is Casper Inglebot, "
            "who once rebuilt a boiler in 12 days.",
        ],
    ),
    (
        "Tickets and rules",
        [
            "A single ticket of the Orvelsay Railway costs 4 pellins. The conductor of the Orvelsay Railway punches "
            "each ticket with a hole in the shape of an acorn. No train of the Orvelsay Railway runs on Tuesdays, "
            "because Tuesday is the day on which the boilers are washed.",
            "A passenger of the Orvelsay Railway may bring one sheep without paying for it. A second sheep pays the "
            "fare of a child. Geese travel with the guard.",
            "The only accident of the Orvelsay Railway happened in 1923. In the accident of 1923 a train hit a piano "
            "that had fallen from a cart. Nobody was hurt in the accident of 1923, and the piano is now in the waiting "
            "room of Fennel Halt.",
        ],
    ),
    (
        "The railway and Brindlemas",
        [
            "On the evening of Brindlemas the Orvelsay Railway runs a train without lamps, so that the passengers can "
            "see the owl lanterns from Larch Viaduct. The baker Wilmot Garrish sends a brindle loaf to the driver of "
            "this train.",
            "From the last carriage of the evening train a passenger can see Skorrow Light. The amber beam of Skorrow "
            "Light passes over the train every 17 seconds.",
        ],
    ),
]

HARBOUR_TITLE = "Harbour Regulations of Drevock"
Block = tuple[str, str | list[list[str]]]
HARBOUR: list[Block] = [
    ("title", HARBOUR_TITLE),
    ("heading", "The harbour and its officers"),
    (
        "paragraph",
        "The harbour master of Drevock is Captain Jorun Addlesby. The harbour master can be called on radio channel "
        "52. The pilot boat of Drevock is the Quick Martha. The Quick Martha meets every ship of more than thirty "
        "paces.",
    ),
    (
        "paragraph",
        "The harbour wall of Drevock is called the Long Elbow. The Long Elbow was finished in 1832. The Long Elbow is "
        "built of limestone that was brought from Tollin Quay.",
    ),
    ("heading", "Coming in and going out"),
    (
        "paragraph",
        "No boat may go faster than 3 knots in the harbour of Drevock. The harbour of Drevock is 7 metres deep at low "
        "water. A boat that comes in at night must show a violet lantern.",
    ),
    (
        "paragraph",
        "The storm flag of Drevock is orange. When the orange flag flies over the Long Elbow, no boat may leave the "
        "harbour. The flag is hoisted by the harbour master or by the keeper of Skorrow Light, Nessa Quorle.",
    ),
    ("heading", "Dues and berths"),
    (
        "paragraph",
        "The dues of the harbour are counted in pellins for each night. A trawler pays 26 pellins a night. A sailing "
        "yacht pays 11 pellins a night. A cargo ship pays 75 pellins a night. Trawlers lie at Tar Pier. Cargo ships "
        "lie at Coal Quay. Harbour dues are paid at the Weigh House.",
    ),
    (
        "table",
        [
            ["Vessel", "Dues a night", "Berth"],
            ["Rowing boat", "2 pellins", "North Steps"],
            ["Sailing yacht", "11 pellins", "Mallard Pontoon"],
            ["Trawler", "26 pellins", "Tar Pier"],
            ["Cargo ship", "75 pellins", "Coal Quay"],
        ],
    ),
    ("heading", "Fish, crabs and oil"),
    (
        "paragraph",
        "A crab that is landed at Drevock must be at least 14 centimetres wide. The crab season of Drevock begins on "
        "6 May. The fish market of Drevock is held in the Glass Shed. The fine for spilling oil in the harbour of "
        "Drevock is 340 pellins.",
    ),
    ("heading", "The lifeboat"),
    (
        "paragraph",
        "The lifeboat of Orvelsay is called the Margery Dunnock. The Margery Dunnock lies at Pask Cove. The coxswain "
        "of the Margery Dunnock is Hale Bronnick. The Margery Dunnock has a crew of 8. The oars of the Margery Dunnock "
        "are made of ash wood.",
    ),
    ("heading", "Ropes and customs"),
    (
        "paragraph",
        "Every boat in the harbour of Drevock must carry one rope of the Guild of Ropewrights, known by its purple "
        "thread. A new boat of Drevock is christened with cold nettle tea. On the day of Brindlemas no dues are paid, "
        "and every boat of Drevock hangs an owl lantern in its rigging.",
    ),
]

_NAMESPACE = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_HEADER = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'


def harbour_text() -> str:
    """The words of the docx, table cells included, one block a line."""
    lines = [text if isinstance(text, str) else "\n".join(" ".join(row) for row in text) for _, text in HARBOUR]
    return "\n".join(lines)


def railway_text() -> str:
    """The words of the pdf, without running head and page numbers, one block a line."""
    return "\n".join([RAILWAY_TITLE, *(line for heading, texts in RAILWAY for line in [heading, *texts])])


def _paragraph(text: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f'<w:p>{properties}<w:r><w:t xml:space="preserve">{escape(text)}</w:t></w:r></w:p>'


def _table(rows: list[list[str]]) -> str:
    grid = "<w:tblGrid>" + "<w:gridCol/>" * len(rows[0]) + "</w:tblGrid>"
    cells = "".join(
        "<w:tr>" + "".join(f"<w:tc><w:tcPr/>{_paragraph(cell)}</w:tc>" for cell in row) + "</w:tr>" for row in rows
    )
    return f'<w:tbl><w:tblPr><w:tblW w:w="0" w:type="auto"/></w:tblPr>{grid}{cells}</w:tbl>'


def _body() -> str:
    styles = {"title": "Heading1", "heading": "Heading2", "paragraph": ""}
    return "".join(_paragraph(text, styles[kind]) if isinstance(text, str) else _table(text) for kind, text in HARBOUR)


def _style(name: str, title: str, size: int) -> str:
    return (
        f'<w:style w:type="paragraph" w:styleId="{name}"><w:name w:val="{title}"/>'
        f'<w:rPr><w:b/><w:sz w:val="{size}"/></w:rPr></w:style>'
    )


def _docx_parts() -> dict[str, str]:
    types = "application/vnd.openxmlformats-officedocument.wordprocessingml"
    return {
        "[Content_Types].xml": f'{_HEADER}<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{types}.document.main+xml"/>'
        f'<Override PartName="/word/styles.xml" ContentType="{types}.styles+xml"/></Types>',
        "_rels/.rels": f'{_HEADER}<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
        f'Type="{_OFFICE}/officeDocument" Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": f'{_HEADER}<Relationships xmlns="{_PACKAGE}/relationships"><Relationship '
        f'Id="rId1" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>',
        "word/styles.xml": f'{_HEADER}<w:styles xmlns:w="{_NAMESPACE}">'
        f"{_style('Heading1', 'heading 1', 40)}{_style('Heading2', 'heading 2', 28)}</w:styles>",
        "word/document.xml": f'{_HEADER}<w:document xmlns:w="{_NAMESPACE}"><w:body>{_body()}<w:sectPr/></w:body>'
        "</w:document>",
    }


def write_docx(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in _docx_parts().items():
            member = zipfile.ZipInfo(name, date_time=(2026, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = 0o644 << 16
            archive.writestr(member, text)


def write_pdf(path: Path) -> None:
    """A5 pages with a running head and a page number, so that reading it has something to drop."""
    from reportlab.lib.pagesizes import A5
    from reportlab.lib.styles import getSampleStyleSheet
    from reportlab.lib.units import mm
    from reportlab.pdfgen.canvas import Canvas
    from reportlab.platypus import Paragraph, SimpleDocTemplate, Spacer

    def frame(canvas: Canvas, document: SimpleDocTemplate) -> None:
        canvas.setFont("Helvetica", 8)
        canvas.drawCentredString(A5[0] / 2, A5[1] - 12 * mm, RAILWAY_HEAD)
        canvas.drawCentredString(A5[0] / 2, 10 * mm, f"Page {document.page}")

    styles = getSampleStyleSheet()
    flow = [Paragraph(RAILWAY_TITLE, styles["Title"])]
    for heading, texts in RAILWAY:
        flow.append(Paragraph(heading, styles["Heading2"]))
        for text in texts:
            flow += [Paragraph(escape(text), styles["BodyText"]), Spacer(1, 2 * mm)]
    margins = {"leftMargin": 20 * mm, "rightMargin": 20 * mm, "topMargin": 22 * mm, "bottomMargin": 20 * mm}
    document = SimpleDocTemplate(str(path), pagesize=A5, title=RAILWAY_TITLE, invariant=1, **margins)
    document.build(flow, onFirstPage=frame, onLaterPages=frame)


def main(folder: Path) -> None:
    write_docx(folder / "harbour-regulations.docx")
    write_pdf(folder / "railway.pdf")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "documents")
