"""Bytes to text: byte-order mark, then UTF-8, then UTF-16 by its zeros, then Windows-1252 when it reads as a Western
language, then what charset-normalizer finds. Bytes that are no text in any of them are refused."""

from __future__ import annotations

import codecs
import unicodedata
from dataclasses import dataclass

from gristmill.core.errors import Reject

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WESTERN = frozenset("àáâãäåæçèéêëìíîïñòóôõöøùúûüýÿßœžšÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝŒŽŠ“”‘’„‚–—…€£§°•«»©®™¿¡·½¼²³ªº\xa0")
SAMPLE = 1 << 16
NOISE = 0.005
COMMON = frozenset(b"\n\r\t !,.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


@dataclass(frozen=True)
class Decoded:
    text: str
    encoding: str


def decode(data: bytes) -> Decoded:
    encoding = _encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise Reject("text in an unknown encoding", str(error)[:200]) from error
    if noise(text[:SAMPLE]) > NOISE:
        raise Reject("unknown binary file")
    return Decoded(text.removeprefix("\ufeff"), encoding)


def noise(text: str) -> float:
    """Share of characters that no text holds: controls, unassigned, private, surrogates."""
    bad = sum(unicodedata.category(c) in ("Cc", "Cn", "Co", "Cs") and c not in "\t\n\r\f\x0b\x1a\x85" for c in text)
    return bad / max(1, len(text))


def _encoding(data: bytes) -> str:
    for mark, name in BOMS:
        if data.startswith(mark):
            return name
    wide = _utf16(data)
    if wide:
        return wide
    if b"\0" in data:
        raise Reject("unknown binary file", "holds NUL bytes")
    try:
        data.decode()
    except UnicodeDecodeError:
        return _eight_bit(data)
    return "utf-8"


def _utf16(data: bytes) -> str:
    """UTF-16 without a mark: more than a quarter of the units are plain Latin letters or blanks, with a zero always on
    the same side, and all of it decodes cleanly. (Text in other scripts needs its mark: nothing else proves it.)"""
    head = data[:SAMPLE]
    if len(data) % 2 or len(data) < 4 or b"\0" not in head:
        return ""
    even, odd = head[::2], head[1::2]
    little = sum(low in COMMON and high == 0 for low, high in zip(even, odd, strict=False))
    big = sum(low in COMMON and high == 0 for high, low in zip(even, odd, strict=False))
    if max(little, big) < len(odd) / 4 or min(little, big) > max(little, big) / 20:
        return ""
    name = "utf-16-le" if little > big else "utf-16-be"
    try:
        text = head.decode(name, "strict" if len(head) == len(data) else "ignore")
    except UnicodeDecodeError:
        return ""
    return name if "\0" not in text and noise(text) < NOISE else ""


def _eight_bit(data: bytes) -> str:
    head = data[:SAMPLE]
    try:
        text = head.decode("cp1252")
    except UnicodeDecodeError:
        text = ""
    beyond = [c for c in text if c > "\x7f"]
    letters = sum(c.isalpha() for c in text)
    western = sum(c in WESTERN for c in beyond)
    if beyond and len(beyond) < 0.3 * max(1, letters) and western >= 0.95 * len(beyond):
        return "cp1252"
    from charset_normalizer import from_bytes

    best = from_bytes(head).best()
    if best is None:
        raise Reject("unknown binary file", "text in no known encoding")
    return best.encoding
