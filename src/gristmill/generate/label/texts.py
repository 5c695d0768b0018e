"""The texts that are labelled, whatever record holds them; and the records of this family among others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from gristmill.core.records import Chunk, Draft, Quote, Record, Sample

RULES, ASKED = "rules", "to label"
"""Kinds of drafts: what the classes are told apart by; a text that waits for its label."""

LABEL, GUESS = "label", "guess"
"""Kinds of samples: what a model labelled by the rules; what a classifier takes a text for."""

SOURCE = "source"
"""Mark of both: the id of the record whose text it is."""


class Text(NamedTuple):
    """A text that may be labelled."""

    record: Record
    text: str
    language: str
    quotes: tuple[Quote, ...]


def texts(records: Iterable[Record], column: str) -> Iterator[Text]:
    """Those among some records; a row without the column, and a sample that is no text, is none."""
    for record in records:
        if isinstance(record, Chunk):
            place = Quote(text=record.text, start=record.start, end=record.end, path=record.path, pages=record.pages)
            yield Text(record, record.text, record.language, (place,))
        elif isinstance(record, Sample) and record.kind not in (LABEL, GUESS) and record.text.strip():
            yield Text(record, record.text, record.language, record.quotes)
        elif isinstance(record, Draft) and record.kind not in (RULES, ASKED):
            text = record.data.get(column)
            if isinstance(text, str) and text.strip():
                yield Text(record, text, str(record.data.get("language") or "en"), ())


def cut(text: str, most: int) -> str:
    """Its beginning and its end, where it is too long to be read whole."""
    half = (most - 5) // 2
    return text if len(text) <= most else f"{text[:half]}\n[…]\n{text[-half:]}"
