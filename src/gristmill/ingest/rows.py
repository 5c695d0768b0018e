"""Files of rows to records, one for each row: JSON lines, a JSON array, CSV, TSV or Parquet, any of them compressed.

A million rows pass through in the memory of one: nothing is read ahead but a buffer. A row names its file (its parent)
and its place there (the mark `line`, or `row` where a file has no lines). A row that cannot be read is a reject with
its place and reason; what follows it is still read, wherever the format lets one find the next row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Draft, File, Record
from gristmill.core.stage import Dropped, PassContext
from gristmill.ingest.files import found
from gristmill.ingest.stages import RowsConfig
from gristmill.ingest.tables import Bad, Table, open_table

SHOWN_EVERY = 1000  # rows between two words on progress
PEEKED = 100  # rows of a file from which `check` learns its columns: a key may be missing in some rows of JSON lines
PEEKED_FILES = 16


def run(config: RowsConfig, records: Iterable[Record], ctx: PassContext) -> Iterator[Draft | Dropped]:
    files = [record for record in records if isinstance(record, File)]
    total = sum(file.size for file in files)
    read = before = 0
    for file in files:
        for made, position in _of_file(file, config):
            if read == config.limit:
                return
            yield made
            read += 1
            if not read % SHOWN_EVERY:
                ctx.progress(before + position(), total, rows=read)
        before += file.size


def _of_file(file: File, config: RowsConfig) -> Iterator[tuple[Draft | Dropped, Callable[[], int]]]:
    try:
        with open_table(Path(str(file.marks["location"])), config) as table:
            for made in _drafts(table, file, config):
                yield made, table.position
    except Reject as reject:
        yield Dropped(file, reject.reason, reject.detail), lambda: file.size


def _drafts(table: Table, file: File, config: RowsConfig) -> Iterator[Draft | Dropped]:
    """A row that cannot be written down again (nested hundreds deep, a number of more than 64 bits) is no row."""
    make = partial(Draft, kind="row", parents=(file.id,))
    mark, columns = table.mark, config.columns
    for place, row in table.rows():
        marks: dict[str, Any] = {mark: place}
        if isinstance(row, Bad):
            yield Dropped(make(data={"text": row.text}, marks=marks), row.reason, f"{mark} {place}: {row.detail}")
            continue
        try:
            draft = make(data=row if columns is None else {name: row[name] for name in columns}, marks=marks)
            draft.id  # noqa: B018  computed here, where its failure is this row's; it is kept
        except KeyError as missing:
            yield Dropped(make(data={}, marks=marks), f"no column {missing.args[0]}", f"{mark} {place}")
        except (ValidationError, TypeError) as error:
            yield Dropped(make(data={}, marks=marks), "row that is no JSON", f"{mark} {place}: {str(error)[:200]}")
        else:
            yield draft


def fields(config: RowsConfig, base: Path, _before: frozenset[str] | None) -> frozenset[str] | None:
    """The columns that a recipe may name, as far as the first rows tell; None where they tell nothing."""
    names: set[str] = set()
    for item in [item for item in found(config, base) if not item.problem][:PEEKED_FILES]:
        try:
            with open_table(item.location, config) as table:
                rows = (row for (_, row), _ in zip(table.rows(), range(PEEKED), strict=False))
                names.update(*(row for row in rows if isinstance(row, dict)))
        except Reject:
            continue  # listed with its reason once the run reads it
    if names and config.columns is not None and (unknown := [c for c in config.columns if c not in names]):
        raise InputError(f"no column is called {', '.join(unknown)}", f"There are: {', '.join(sorted(names))}.")
    return frozenset(config.columns or names) if names else None
