"""Rows of one file, one after the other: (place, row). The format is the name's ending; `.gz` and `.zst` are unpacked
on the way. What cannot be a table at all is a Reject of the file; a row that cannot be read is a `Bad` in its place."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import orjson

from gristmill.core.cells import read_rows
from gristmill.core.errors import Reject
from gristmill.ingest.stages import RowsConfig

BUFFER = 1 << 20
PACKED = {".gz": "gzip", ".zst": "zstd"}
DELIMITERS = ",;\t|"
SHOWN = 200  # characters of a bad row
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Bad:
    """A row that cannot be read."""

    reason: str
    detail: str = ""
    text: str = ""


Rows = Iterator[tuple[int, "dict[str, Any] | Bad"]]


@dataclass(frozen=True)
class Table:
    """An open file. `mark` says what a row's place counts; `position` how many bytes of the file have been read."""

    mark: str
    rows: Callable[[], Rows]
    position: Callable[[], int]


@contextmanager
def open_table(path: Path, config: RowsConfig) -> Iterator[Table]:
    """The rows of a file. Trouble in reading it, of whatever layer, is a Reject of the file."""
    packed = PACKED.get(path.suffix.lower())
    ending = (path.with_suffix("") if packed else path).suffix.lower()
    most = int(config.max_row_mb * 1e6)
    try:
        with open(path, "rb", buffering=BUFFER) as file:  # noqa: PTH123
            if ending == ".parquet" and not packed:
                from gristmill.ingest.parquet import parquet_rows

                yield Table("row", lambda: parquet_rows(file, config.columns), file.tell)
                return
            stream: IO[bytes] = io.BufferedReader(_unpacked(file, packed), BUFFER) if packed else file
            if ending == ".json" and _starts_array(stream):
                yield Table("row", lambda: _array(stream, most), file.tell)
            elif ending in (".jsonl", ".ndjson", ".json"):
                yield Table("line", lambda: _lines(stream, most), file.tell)
            elif ending in (".csv", ".tsv"):
                yield Table("line", lambda: _delimited(stream, most, config.delimiter, ending), file.tell)
            else:
                raise Reject("not a table", "jsonl, json, csv, tsv, each also .gz or .zst, and parquet are")
    except (OSError, EOFError, ValueError, csv.Error) as error:
        raise Reject("damaged file", str(error)[:SHOWN]) from error


def _unpacked(file: IO[bytes], packed: str) -> Any:
    import pyarrow as pa  # not for `check` of a plain file: it takes longer to load than all the rest

    return pa.CompressedInputStream(pa.PythonFile(file, "r"), packed)


@contextmanager
def _as_text(stream: IO[bytes], encoding: str, **how: Any) -> Iterator[io.TextIOWrapper]:
    """The stream as text, left open: whoever opened it closes it."""
    text = io.TextIOWrapper(stream, encoding, **how)
    try:
        yield text
    finally:
        text.detach()


def _starts_array(stream: IO[bytes]) -> bool:
    """Without moving on: the first character that is not white space is `[`."""
    head: bytes = stream.peek(BUFFER)  # type: ignore[attr-defined]
    return head.removeprefix(_BOM).lstrip().startswith(b"[")


def _lines(stream: IO[bytes], most: int) -> Rows:
    number = 0
    while line := stream.readline(most + 1):
        number += 1
        if number == 1:
            line = line.removeprefix(_BOM)
        if len(line) > most:
            _skip_line(stream, line, most)
            yield number, Bad("row larger than max_row_mb")
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if line.strip():
                yield number, Bad("damaged line", str(error), _shown(line))
        else:
            yield number, row if type(row) is dict else Bad("line that is no object", text=_shown(line))


def _skip_line(stream: IO[bytes], line: bytes, most: int) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(most)


def _shown(line: bytes) -> str:
    return line[:SHOWN].decode("utf-8", "backslashreplace").strip()


def _array(stream: IO[bytes], most: int) -> Rows:
    """The objects of one JSON array, each decoded from a buffer that grows only as far as one row needs.

    After a damaged row nobody can say where the next one begins: it ends the file."""
    with _as_text(stream, "utf-8-sig") as text:
        yield from _elements(text, most)


def _elements(text: io.TextIOWrapper, most: int) -> Rows:
    decode = json.JSONDecoder(parse_constant=_no_constant).raw_decode
    buffer, at, number, step = text.read(BUFFER).lstrip(), 1, 0, BUFFER
    while True:
        at = _past(buffer, at, ",")
        if at < len(buffer) and buffer[at] == "]":
            return
        try:
            row, end = decode(buffer, at)
            whole = end < len(buffer)
        except (ValueError, RecursionError) as error:
            whole, problem = False, str(error)
        else:
            problem = "it ends in the middle of the array"
        if whole:
            number, at, step = number + 1, end, BUFFER
            yield number, row if type(row) is dict else Bad("element that is no object", text=str(row)[:SHOWN])
            continue
        more = text.read(step)
        if not more or len(buffer) - at > most:
            yield number + 1, Bad("damaged array: the rest is not read", problem, buffer[at : at + SHOWN])
            return
        buffer, at, step = buffer[at:] + more, 0, step * 2


def _past(buffer: str, at: int, comma: str) -> int:
    """Behind white space and one comma."""
    while at < len(buffer) and (buffer[at].isspace() or buffer[at] == comma):
        comma = "" if buffer[at] == comma else comma
        at += 1
    return at


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _delimited(stream: IO[bytes], most: int, delimiter: str | None, ending: str) -> Rows:
    """The first row names the columns. A row with more or fewer cells is refused: a quote that is never closed would
    otherwise swallow the rows after it."""
    head: bytes = stream.peek(BUFFER)  # type: ignore[attr-defined]
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    with _as_text(stream, encoding, errors="surrogateescape", newline="") as text:
        yield from _cells(text, most, delimiter, ending)


def _cells(text: io.TextIOWrapper, most: int, delimiter: str | None, ending: str) -> Rows:
    first = text.readline(most)
    by = delimiter or ("\t" if ending == ".tsv" else max(DELIMITERS, key=first.count))
    lines = _Lines(first, text, most)
    table = read_rows(lines, delimiter=by)
    names = next(table, [])
    if not any(names) or "" in names or len(set(names)) < len(names):
        raise Reject("csv without column names", f"the first row names each column once; it says {names[:20]}")
    while True:
        at = lines.next_row()
        try:
            cells = next(table)
            "".join(cells).encode()
        except StopIteration:
            return
        except csv.Error as error:
            yield at, Bad("damaged row", str(error))
        except UnicodeEncodeError:
            yield at, Bad("row that is not UTF-8", text=_shown(by.join(cells).encode("utf-8", "surrogateescape")))
        else:
            if len(cells) == len(names):
                yield at, dict(zip(names, cells, strict=True))
            elif cells:
                yield (
                    at,
                    Bad("row with another number of cells", f"{len(cells)}, not {len(names)}", by.join(cells)[:SHOWN]),
                )


class _Lines:
    """The lines of one row after the other: a quote that is never closed ends where a row may be no larger."""

    def __init__(self, first: str, text: io.TextIOWrapper, most: int) -> None:
        self._ahead, self._text, self._most = first, text, most
        self._number, self._characters = 0, 0

    def next_row(self) -> int:
        """The number of the line that the next row begins with."""
        self._characters = 0
        return self._number + 1

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, self._ahead = self._ahead or self._text.readline(self._most), ""
        if not line:
            raise StopIteration
        if len(line) >= self._most:
            raise Reject("line larger than max_row_mb", "Is it a table?")
        self._number += 1
        self._characters += len(line)
        if self._characters > self._most:
            raise csv.Error("row larger than max_row_mb: is a quote never closed?")
        return line
