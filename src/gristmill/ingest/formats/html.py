"""HTML: the main content, its headings, lists, tables and code; never the navigation.

Where the page itself says what is main (<main>, role=main, a single <article>), that is it. Elsewhere trafilatura
decides; a page with little text has nothing to decide (and trafilatura would flatten it), so its body is taken
without menus.
"""

from __future__ import annotations

import re

from lxml import etree
from lxml import html as lxml_html

from gristmill.core.errors import Reject
from gristmill.ingest.encoding import decode
from gristmill.ingest.formats.tree import blocks, name_of
from gristmill.ingest.pieces import Content, Piece, inline

AROUND = (
    "//nav | //aside | //footer[not(ancestor::article or ancestor::blockquote)] | //form | //dialog"
    " | //header[not(ancestor::article or ancestor::main or .//h1)]"
    " | //*[@role='navigation' or @role='banner' or @role='contentinfo' or @role='search' or @role='complementary']"
)
SHORT = 3000  # characters of body text below which there is nothing to choose between
_CHARSET = re.compile(rb"<(?:meta|\?xml)[^>]+(?:charset|encoding)\s*=", re.IGNORECASE)
LINKED = 0.7  # share of link text above which a block is a menu


def parse(data: bytes, encoding: str | None = None) -> etree._Element:
    parser = lxml_html.HTMLParser(
        encoding=encoding, no_network=True, huge_tree=False, remove_comments=True, remove_pis=True
    )
    try:
        root = lxml_html.document_fromstring(data, parser=parser)
    except etree.ParserError as error:
        raise Reject("empty page", str(error)) from error
    if any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log):
        raise Reject("nested too deeply")  # the parser leaves out what lies deeper; a page is read whole or not at all
    return root


def encoding_of(data: bytes) -> str | None:
    """What a mark or UTF-8 itself proves; None leaves it to the page's <meta>; without one, what the bytes look
    like."""
    try:
        data.decode()
        return "utf-8"
    except UnicodeDecodeError:
        declared = _CHARSET.search(data[:4096])
        return None if declared and not data.startswith((b"\xff\xfe", b"\xfe\xff")) else decode(data).encoding


def read(data: bytes) -> Content:
    encoding = encoding_of(data)
    if encoding and encoding.startswith(("utf-16", "utf-32")):
        data, encoding = data.decode(encoding).encode(), "utf-8"
    root = parse(data, encoding)
    title = root.findtext(".//title") or ""
    for node in root.xpath(AROUND):
        if not node.xpath(".//main | .//*[@role='main']"):
            node.drop_tree()
    pieces = _main(root)
    if not any(p.kind != "heading" for p in pieces):
        raise Reject("no main content found")
    first = next((p.text for p in pieces if p.kind == "heading" and p.level == 1), "")
    return Content("text/html", pieces, title=first or title)


def _main(root: etree._Element) -> list[Piece]:
    for choice in ("//main | //*[@role='main']", "//article"):
        nodes = root.xpath(choice)
        if len(nodes) == 1 and len(inline(nodes[0].text_content())) > 1:
            return blocks(nodes[0])
    body = root.find("body")
    if body is None:
        return []
    if len(inline(body.text_content())) < SHORT:
        _drop_menus(body)
        return blocks(body)
    return _extracted(root)


def _extracted(root: etree._Element) -> list[Piece]:
    import trafilatura

    # trafilatura drops h1 outside the article it finds; the page's own first h1 is put back as its heading
    heading = root.find(".//h1")
    first = inline(heading.text_content()) if heading is not None else ""
    found = trafilatura.extract(
        root,
        output_format="xml",
        include_comments=False,
        include_tables=True,
        include_formatting=False,
        favor_recall=True,
    )
    if not found:
        return []
    main = etree.fromstring(found.encode(), etree.XMLParser(resolve_entities=False, no_network=True)).find("main")
    pieces = blocks(main) if main is not None else []
    if first and not any(p.kind == "heading" and p.text == first for p in pieces):
        pieces.insert(0, Piece("heading", first, 1))
    return pieces


def _drop_menus(body: etree._Element) -> None:
    """Lists, paragraphs and divisions whose text is mostly links, and more than one link, are menus."""
    for node in [n for n in body.iter() if name_of(n) in ("ul", "ol", "p", "div", "table")]:
        links = [inline(a.text_content()) for a in node.iter("a")]
        text = re.sub(r"[\s|·•/»>-]+", "", node.text_content())
        linked = len(re.sub(r"\s+", "", "".join(links)))
        if len(links) > 1 and linked > LINKED * len(text) and node.getparent() is not None:
            node.drop_tree()
