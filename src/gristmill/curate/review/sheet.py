"""Samples as a sheet that people fill in: one row each, in JSON lines and CSV alike.

    id, decision, note         decision is empty, approve, reject or edit; the note is for people, and kept as a reason
    kind, source, quote        what it is, and what it rests on
    question, answer, …        its texts, which may be changed where the decision is edit

The texts of a chat are named by role and turn (question, answer, question 2, …), those of a preference also chosen and
rejected. CSV is UTF-8 with the mark that spreadsheets look for.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import orjson

from gristmill.core.cells import write_cells
from gristmill.core.files import atomic
from gristmill.core.records import Message, Sample

HEAD = ("id", "decision", "note", "kind", "source", "quote")
ROLES = {"system": "system", "user": "question", "assistant": "answer", "tool": "tool"}
QUOTED = 1000
"""Characters of a quote on the sheet."""

Row = dict[str, str]


def texts_of(sample: Sample) -> Row:
    """Name -> text of all that may be edited, in reading order."""
    named = {"text": sample.text, "label": sample.label}
    texts = {name: text for name, text in named.items() if text}
    for part, messages in (("", sample.messages), ("chosen", sample.chosen), ("rejected", sample.rejected)):
        texts |= {name: message.content for name, message in _named(part, messages)}
    return texts


def _named(part: str, messages: Sequence[Message]) -> Iterator[tuple[str, Message]]:
    seen: dict[str, int] = {}
    for message in messages:
        role = ROLES[message.role]
        name = role if not part else part if role == "answer" else f"{part} {role}"
        seen[name] = seen.get(name, 0) + 1
        yield (name if seen[name] == 1 else f"{name} {seen[name]}"), message


def row_of(sample: Sample) -> Row:
    quote = sample.quotes[0] if sample.quotes else None
    page = f", page {quote.pages[0]}" if quote and quote.pages else ""
    about = (
        sample.id,
        "",
        "",
        sample.kind,
        f"{quote.path}{page}" if quote else "",
        quote.text[:QUOTED] if quote else "",
    )
    return {**dict(zip(HEAD, about, strict=True)), **texts_of(sample)}


def write_sheet(pool: Iterable[Sample], folder: Path) -> list[Path]:
    """`review.jsonl` and `review.csv`, the same rows in both: one of them is filled in."""
    rows = [row_of(sample) for sample in pool]
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines, table = folder / "review.jsonl", folder / "review.csv"
    with atomic(lines) as file:
        file.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    text = io.StringIO(newline="")
    write_cells(text, [names, *([row.get(name, "") for name in names] for row in rows)])
    with atomic(table) as file:
        file.write(text.getvalue().encode("utf-8-sig"))
    return [lines, table]
