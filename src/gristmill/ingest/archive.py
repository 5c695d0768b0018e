"""Zip-based documents, opened only after every member was unpacked once in passing: names, number, true size, ratio.

Header sizes can lie, so bytes are counted while they stream; nothing is ever written to disk.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import PurePosixPath

from gristmill.core.errors import Reject

MAX_MEMBERS = 20_000
MAX_RATIO = 200  # unpacked to packed; deflate itself cannot pass 1032
RATIO_FROM = 20_000_000  # small files may be as regular as they like
STEP = 1 << 20
XML = (".xml", ".rels", ".opf", ".ncx", ".xhtml", ".html", ".htm")


def open_zip(data: bytes, *, max_bytes: int, doctype: bool = False) -> zipfile.ZipFile:
    """The archive, proven harmless to unpack. `doctype`: whether XML in it may name a DTD (epub pages do)."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise Reject("damaged archive", str(error)) from error
    members = archive.infolist()
    if len(members) > MAX_MEMBERS:
        raise Reject("archive with too many entries", f"{len(members)} entries")
    total = 0
    for member in members:
        _check_name(member)
        total = _unpack(archive, member, total, min(max_bytes, max(RATIO_FROM, len(data) * MAX_RATIO)), doctype)
    return archive


def _check_name(member: zipfile.ZipInfo) -> None:
    name = member.filename.replace("\\", "/")
    if name.startswith("/") or ".." in PurePosixPath(name).parts or ":" in name.split("/")[0]:
        raise Reject("archive entry outside its folder", member.filename[:200])
    if member.flag_bits & 1:
        raise Reject("encrypted file")


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, total: int, limit: int, doctype: bool) -> int:
    """Total of bytes unpacked, this member included."""
    xml = member.filename.lower().endswith(XML)
    tail = b""
    try:
        with archive.open(member) as file:
            while piece := file.read(STEP):
                total += len(piece)
                if total > limit:
                    raise Reject("archive bomb", f"more than {limit} bytes unpacked")
                if xml:
                    _check_xml(tail + piece, doctype)
                    tail = piece[-32:]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise Reject("damaged archive", f"{member.filename[:200]}: {error}") from error
    return total


def _check_xml(data: bytes, doctype: bool) -> None:
    """No entities, no DTD, in any width of character."""
    plain = data.replace(b"\0", b"")
    if b"<!ENTITY" in plain or (not doctype and b"<!DOCTYPE" in plain):
        raise Reject("XML with entities or a DTD")
