"""EPUB: the pages of the spine in their order, by zipfile and lxml. Page numbers are not kept: an e-book has none."""

from __future__ import annotations

import posixpath
import zipfile
from urllib.parse import unquote

from lxml import etree

from gristmill.core.errors import Reject
from gristmill.ingest.archive import open_zip
from gristmill.ingest.formats import html
from gristmill.ingest.formats.docx import XML
from gristmill.ingest.formats.tree import blocks
from gristmill.ingest.pieces import Content, Piece

OPF = "{http://www.idpf.org/2007/opf}"


def read(data: bytes, *, max_bytes: int) -> Content:
    archive = open_zip(data, max_bytes=max_bytes, doctype=True)
    names = set(archive.namelist())
    if "META-INF/encryption.xml" in names and b"EncryptedData" in archive.read("META-INF/encryption.xml"):
        _refuse_encrypted(archive)
    try:
        container = etree.fromstring(archive.read("META-INF/container.xml"), XML)
        root_path = container.find(".//{*}rootfile").get("full-path")
        package = etree.fromstring(archive.read(str(root_path)), XML)
    except (KeyError, AttributeError, etree.XMLSyntaxError) as error:
        raise Reject("damaged epub", str(error)) from error
    items = {item.get("id"): item for item in package.iter(f"{OPF}item")}
    pieces: list[Piece] = []
    for ref in package.iter(f"{OPF}itemref"):
        item = items.get(ref.get("idref"))
        if item is None or "nav" in (item.get("properties") or "").split():
            continue
        name = posixpath.normpath(posixpath.join(posixpath.dirname(str(root_path)), unquote(item.get("href") or "")))
        if name in names:
            body = html.parse(archive.read(name), None).find("body")
            pieces += blocks(body) if body is not None else []
    title = package.findtext(".//{http://purl.org/dc/elements/1.1/}title") or ""
    return Content("application/epub+zip", pieces, title=title)


def _refuse_encrypted(archive: zipfile.ZipFile) -> None:
    """Fonts are often scrambled, which does no harm; pages are only so under copy protection."""
    root = etree.fromstring(archive.read("META-INF/encryption.xml"), XML)
    uris = [node.get("URI") or "" for node in root.iter("{*}CipherReference")]
    if any(uri.lower().endswith((".xhtml", ".html", ".htm", ".xml")) for uri in uris):
        raise Reject("encrypted file", "copy protection")
