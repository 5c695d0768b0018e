"""Where two outputs of one stage differ: the first record, reject or file that is not the same, with a short diff."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import orjson

from gristmill.core.files import sha256_file
from gristmill.core.records import Checkpoint, from_row
from gristmill.llm.client import NotKept
from gristmill.models.weights import MANIFEST
from gristmill.runs.folder import Output
from gristmill.runs.tables import Row, rows

LINES, WIDTH = 3, 60
"""Of a diff: fields, and characters of each value."""

ABSENT = "(absent)"
SINCE = ", was changed after the run"

REJECT = ("id", "status", "reason", "detail")
"""What of a reject must be the same."""

Changed = tuple[str, str, str]
"""A field, what was recorded in it, and what is made here."""


@dataclass(frozen=True)
class Difference:
    """`what` differs first: which record, reject or file, and in which fields. `since`: what was recorded is not what
    the run wrote, so that no machine could make it again."""

    what: str
    fields: tuple[Changed, ...] = ()
    since: bool = False

    def words(self) -> str:
        told = "; ".join(f"{name} was {then}, and is {now}" for name, then, now in self.fields)
        return f"{self.what}: {told}" if told else self.what


def output_difference(recorded: Output, made: Output) -> Difference | None:
    """The first record that is not the same, in order; else the first reject."""
    for number, (then, now) in enumerate(zip_longest(rows(recorded.records), rows(made.records)), 1):
        if (other := _record(number, then, now)) is not None:
            return other
    for number, (then, now) in enumerate(zip_longest(recorded.rejects(), made.rejects()), 1):
        if (other := _reject(number, then, now)) is not None:
            return other
    return None


def unkept(recorded: Output, made: Output) -> str | None:
    """The first answer that a record needed and the store does not hold, though the record was answered once."""
    failed = {row["id"] for row in recorded.rejects() if row["status"] == "failed"}
    return next((str(row["detail"]) for row in made.rejects() if _unasked(row) and row["id"] not in failed), None)


def weights_difference(recorded: Path, made: Path) -> tuple[int, Difference | None]:
    """How many files two checkpoints have, and the first that is not the same in both."""
    then, now = _hashes(recorded), _hashes(made)
    for name in sorted({*then, *now}):
        if then.get(name) != now.get(name):
            stated = _stated(recorded).get(name)
            since = stated not in (None, then.get(name))
            shown = (_short(then.get(name)), _short(now.get(name)))
            return len(then), Difference(f"file {name}{SINCE * since}", (("sha256", *shown),), since)
    return len(then), None


def _record(number: int, then: Row | None, now: Row | None) -> Difference | None:
    if then is None or now is None:
        row, where = (now, "is new") if then is None else (then, "is not made here")
        return Difference(f"record {number}, {row['type']} {row['id']}, {where}" if row else "")
    fields = tuple(_fields(_plain(then), _plain(now)))
    since = not _sound(then)
    what = f"record {number}, {then['type']} {then['id']}{SINCE * since}"
    return Difference(what, fields[:LINES], since) if fields else None


def _sound(row: Row) -> bool:
    """Whether a record is what its id and digest say."""
    try:
        return from_row(row).digest == str(row["digest"])
    except ValueError:
        return False


def _reject(number: int, then: Row | None, now: Row | None) -> Difference | None:
    if then is None or now is None:
        row, where = (now, "is new") if then is None else (then, "is not made here")
        return Difference(f"reject {number}, of {row['type']} {row['id']} ({row['reason']}), {where}" if row else "")
    if then["id"] == now["id"] and then["status"] == "failed" and _unasked(now):
        return None  # it was not answered then, and nobody is asked now
    told, tells = ({name: row[name] for name in REJECT} for row in (then, now))
    fields = tuple(_fields(told, tells))
    return Difference(f"reject {number}, of {then['type']} {then['id']}", fields[:LINES]) if fields else None


def _unasked(row: Row) -> bool:
    return bool(row["status"] == "failed" and row["reason"] == NotKept.__name__)


def _plain(row: Row) -> dict[str, Any]:
    """A record's row as plain data. Where a checkpoint lies is no part of what it is."""
    marks = orjson.loads(row["marks"])
    if row["type"] == Checkpoint.type:
        marks.pop("folder", None)
    outside = {"id": row["id"], "parents": row["parents"], "origin": orjson.loads(row["origin"] or "null")}
    return {**orjson.loads(row["body"]), "marks": marks, **outside}


def _fields(then: Any, now: Any, where: str = "") -> Iterator[Changed]:
    """The innermost fields whose values are not the same. The id, which follows from the others, comes last."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted({*then, *now}, key=lambda name: (name == "id", str(name))):
            yield from _fields(then.get(name, ABSENT), now.get(name, ABSENT), f"{where}.{name}" if where else str(name))
    elif then != now:
        yield where, *_around(then, now)


def _around(then: Any, now: Any) -> tuple[str, str]:
    """Both values, from a little before where they part."""
    told = [value if isinstance(value, str) else orjson.dumps(value).decode() for value in (then, now)]
    same = next((i for i, (a, b) in enumerate(zip(*told, strict=False)) if a != b), min(map(len, told)))
    start = max(0, same - WIDTH // 3)
    before, after = ((("…" if start else "") + text[start : start + WIDTH]) for text in told)
    return before + ("…" if len(told[0]) > start + WIDTH else ""), after + ("…" if len(told[1]) > start + WIDTH else "")


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "missing"


def _hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def _stated(folder: Path) -> dict[str, str]:
    """What a checkpoint's manifest says of its files."""
    path = folder / MANIFEST
    files = orjson.loads(path.read_bytes())["files"] if path.exists() else []
    return {file["name"]: file["sha256"] for file in files}
