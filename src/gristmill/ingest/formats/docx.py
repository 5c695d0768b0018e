"""Word: mammoth makes HTML of it (headings, lists, tables, footnotes), the common walk makes blocks. Images are
left out."""

from __future__ import annotations

import io
import zipfile

from lxml import etree

from gristmill.ingest.archive import open_zip
from gristmill.ingest.formats import html
from gristmill.ingest.formats.tree import blocks
from gristmill.ingest.pieces import Content

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
STYLES = """
p[style-name='Title'] => h1:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name='Code'] => pre:separator('\n')
"""
XML = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)


def read(data: bytes, *, max_bytes: int) -> Content:
    import mammoth

    archive = open_zip(data, max_bytes=max_bytes)
    no_image = mammoth.images.img_element(lambda _image: {})
    page = mammoth.convert_to_html(io.BytesIO(data), style_map=STYLES, convert_image=no_image).value
    root = html.parse(f"<html><body>{page}</body></html>".encode(), "utf-8")
    for note in root.xpath("//a[starts-with(@href, '#footnote-ref') or starts-with(@href, '#endnote-ref')]"):
        note.drop_tree()  # the way back from a note; its number in the text stays
    return Content(MEDIA_TYPE, blocks(root.find("body")), title=core_title(archive))


def core_title(archive: zipfile.ZipFile) -> str:
    """The title that an Office file's properties carry."""
    if "docProps/core.xml" not in archive.namelist():
        return ""
    root = etree.fromstring(archive.read("docProps/core.xml"), XML)
    return root.findtext("{http://purl.org/dc/elements/1.1/}title") or ""
