"""Tables as rows: every format, every kind of damage, and no more memory than a row needs."""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.fakes.fixtures import FakeServer, fake_server
from tests.runs.project import Project

from gristmill.core.errors import InputError
from gristmill.core.records import Draft, File
from gristmill.core.stage import Dropped
from gristmill.ingest import files, rows
from gristmill.ingest.stages import RowsConfig

ROWS = [{"id": f"r{i}", "text": f'Ünïcode, "quoted"\nand {i}'} for i in range(2500)]


class Context:
    """What the passes use of theirs."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.told: list[dict[str, Any]] = []

    def progress(self, done: float, total: float, **values: Any) -> None:
        self.told.append({"done": done, "total": total, **values})


def read(base: Path, *paths: str, **options: Any) -> tuple[list[Draft], list[Dropped], Context]:
    config = RowsConfig(kind="ingest.rows", paths=list(paths), **options)
    context: Any = Context(base)
    listed = [item for item in files.run(config, [], context) if isinstance(item, File)]
    made = list(rows.run(config, listed, context))
    return [m for m in made if isinstance(m, Draft)], [m for m in made if isinstance(m, Dropped)], context


def jsonl(table: list[Any]) -> bytes:
    return b"".join(orjson.dumps(row) + b"\n" for row in table)


def delimited(table: list[dict[str, Any]], delimiter: str = ",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(table[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(table)
    return out.getvalue().encode()


def parquet(table: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(table), out)
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    out = pa.BufferOutputStream()
    with pa.CompressedOutputStream(out, "zstd") as stream:
        stream.write(data)
    return bytes(out.getvalue())


FORMATS: dict[str, Callable[[], bytes]] = {
    "table.jsonl": lambda: jsonl(ROWS),
    "table.ndjson": lambda: b"\xef\xbb\xbf" + jsonl(ROWS).replace(b"\n", b"\r\n\r\n"),
    "table.json": lambda: orjson.dumps(ROWS, option=orjson.OPT_INDENT_2),
    "lines.json": lambda: jsonl(ROWS),
    "table.csv": lambda: delimited(ROWS),
    "semicolons.csv": lambda: b"\xef\xbb\xbf" + delimited(ROWS, ";"),
    "utf16.csv": lambda: delimited(ROWS).decode().encode("utf-16"),
    "table.tsv": lambda: delimited(ROWS, "\t"),
    "table.parquet": lambda: parquet(ROWS),
    "table.jsonl.gz": lambda: gzip.compress(jsonl(ROWS[:1000])) + gzip.compress(jsonl(ROWS[1000:])),
    "table.csv.zst": lambda: zstd(delimited(ROWS)),
    "table.json.zst": lambda: zstd(orjson.dumps(ROWS)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_row_comes_through_with_its_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(FORMATS[name]())
    drafts, dropped, _ = read(tmp_path, name)
    assert [draft.data for draft in drafts] == ROWS and not dropped
    assert {draft.kind for draft in drafts} == {"row"} and len({draft.parents for draft in drafts}) == 1


def test_a_row_says_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n\n{"a": 2}\n')
    (tmp_path / "b.csv").write_bytes(b'a,b\n1,"two\nlines"\n3,4\n')
    (tmp_path / "c.parquet").write_bytes(parquet([{"a": 1}, {"a": 2}]))
    drafts, _, _ = read(tmp_path, "a.jsonl", "b.csv", "c.parquet")
    assert [draft.marks for draft in drafts] == [
        *({"line": n} for n in (1, 3)),
        *({"line": n} for n in (2, 4)),
        *({"row": n} for n in (1, 2)),
    ]


@pytest.mark.parametrize(
    ("name", "data", "reasons"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n{"a": 2}\n', ["damaged line"]),
        ("a.jsonl", b'{"a": 1}\n[1]\n"text"\n7\n{"a": 2}', ["line that is no object"] * 3),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n{"a": NaN}\n{"a": 2}\n', ["damaged line"] * 2),
        ("a.jsonl", b'{"a": 1}\n' + b'{"a": ' * 900 + b"1" + b"}" * 900 + b'\n{"a": 2}\n', ["row that is no JSON"]),
        ("a.jsonl", b'{"a": 1}\n{"a": "' + b"x" * 20_000 + b'"}\n{"a": 2}', ["row larger than max_row_mb"]),
        ("a.json", b'[{"a": 1}, 5, {"a": 2}]', ["element that is no object"]),
        ("a.json", b'[{"a": 1}, {"a": 2}, {"a": }, {"a": 3}]', ["damaged array: the rest is not read"]),
        ("a.json", b'[{"a": 1}, {"a": 2},', ["damaged array: the rest is not read"]),
        ("a.json", b'[{"a": 1}, {"a": 2}, {"a": ' + b"9" * 40 + b"}]", ["row that is no JSON"]),
        ("a.csv", b"a\n1\n2,3\n2\n", ["row with another number of cells"]),
        ("a.csv", b"a\n1\n\xff\n2\n", ["row that is not UTF-8"]),
        ("a.csv", b'a\n1\n2\n"never closed\n' + b"x\n" * 9000, ["damaged row"]),
        ("a.csv", b'"never closed\n' + b"x\n" * 9000, ["damaged file"]),
        ("a.csv", b"a\n1\n2\n" + b"x" * 20_000, ["line larger than max_row_mb"]),
        ("a.csv", b"a,a\n1,2\n", ["csv without column names"]),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n{"a": 2}\n' + b"\n" * 300_000)[:-20], ["damaged file"]),
        ("a.jsonl.gz", b"no gzip", ["damaged file"]),
        ("a.parquet", b"PAR1 no parquet", ["damaged file"]),
        ("a.parquet", parquet([{"picture": b"\x00\x01"}]), ["binary column picture"]),
        ("a.md", b"# No table", ["not a table"]),
        ("a.jsonl", b"", []),
    ],
)
def test_what_cannot_be_read_is_a_reject_and_the_rest_is_kept(
    tmp_path: Path, name: str, data: bytes, reasons: list[str]
) -> None:
    (tmp_path / name).write_bytes(data)
    drafts, dropped, _ = read(tmp_path, name, max_row_mb=0.01)
    assert [item.reason for item in dropped] == reasons
    whole = [draft.data for draft in drafts if set(str(draft.data["a"])) <= set("12")]
    assert [str(row["a"]) for row in whole] == (["1", "2"] if len(data) > 4 and drafts else [])


def test_a_reject_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n{"a": \n')
    _, [dropped], _ = read(tmp_path, "a.jsonl")
    assert dropped.detail.startswith("line 2: ") and dropped.record.marks == {"line": 2}
    assert isinstance(dropped.record, Draft) and dropped.record.data == {"text": '{"a":'}


def test_a_table_keeps_its_own_limit_while_another_is_read(tmp_path: Path) -> None:
    never_closed = b'"never closed\n' + b"x\n" * 150_000
    (tmp_path / "wide.csv").write_bytes(b"a\n1\n" + b"x" * 150_000 + b"\n" + never_closed + b"2\n")
    (tmp_path / "narrow.csv").write_bytes(b"a\n1\n")

    def reading(name: str, most: float) -> Any:
        config, context = RowsConfig(kind="ingest.rows", paths=[name], max_row_mb=most), Context(tmp_path)
        return rows.run(config, list(files.run(config, [], context)), context)  # type: ignore[arg-type]

    wide, narrow = reading("wide.csv", 0.2), reading("narrow.csv", 0.01)
    assert next(wide).data == next(narrow).data == {"a": "1"}
    assert len(next(wide).data["a"]) == 150_000
    damaged = next(wide)
    assert damaged.reason == "damaged row" and "row larger than max_row_mb" in damaged.detail
    *_, last = wide
    assert last.data == {"a": "2"} and last.marks["line"] == 150_005


def test_columns_limit_and_several_files(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "1.jsonl").write_bytes(jsonl([{"a": 1, "b": 2, "c": None}, {"a": 3}, {"a": 4, "b": [5], "c": 6}]))
    (tmp_path / "t" / "2.csv").write_bytes(b"b,a\n7,8\n9,10\n")
    (tmp_path / "t" / "notes.md").write_text("read me")
    drafts, dropped, _ = read(tmp_path, "t", columns=["b", "a"], limit=5, exclude=["*.md"])
    assert [draft.data for draft in drafts] == [
        {"b": 2, "a": 1},
        {"b": [5], "a": 4},
        {"b": "7", "a": "8"},
        {"b": "9", "a": "10"},
    ]
    assert [(item.reason, item.detail) for item in dropped] == [("no column b", "line 2")]
    assert len(read(tmp_path, "t", columns=["a"], limit=2, exclude=["*.md"])[0]) == 2


def test_parquet_says_what_json_can_say(tmp_path: Path) -> None:
    when = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)
    table = {"when": when, "price": Decimal("1.50"), "x": float("nan"), "deep": {"on": [when.date()]}, "n": 2**63 - 1}
    (tmp_path / "a.parquet").write_bytes(parquet([table]))
    [draft], _, _ = read(tmp_path, "a.parquet")
    assert draft.data == {
        "when": when.isoformat(),
        "price": "1.50",
        "x": None,
        "deep": {"on": ["2026-11-21"]},
        "n": 2**63 - 1,
    }


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(jsonl(ROWS))
    told = read(tmp_path, "a.jsonl")[2].told
    assert [word["rows"] for word in told] == [1000, 2000]
    assert all(0 < word["done"] <= word["total"] == (tmp_path / "a.jsonl").stat().st_size for word in told)


def test_check_learns_the_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\nbroken\n{"b": 1}\n')
    (tmp_path / "b.csv").write_bytes(b"c,d\n1,2\n")
    (tmp_path / "e.parquet").write_bytes(parquet([{"e": 1}]))

    def names(*paths: str, **options: Any) -> frozenset[str] | None:
        config = RowsConfig(kind="ingest.rows", paths=list(paths), **options)
        return rows.fields(config, tmp_path, None)

    assert names("a.jsonl", "b.csv", "e.parquet") == set("abcde")
    assert names("a.jsonl", columns=["b"]) == {"b"}
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert names("empty.jsonl") is None
    with pytest.raises(InputError, match="no column is called x"):
        names("a.jsonl", columns=["a", "x"])


MEASURE = """
import resource, sys
from pathlib import Path
from gristmill.core.records import File
from gristmill.ingest import rows
from gristmill.ingest.stages import RowsConfig
class Context:
    def progress(self, *_, **__): pass
def held():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
def go(path):
    config = RowsConfig(kind="ingest.rows", paths=["t"])
    file = File(path="t", sha256="", size=1, marks={"location": path})
    return sum(1 for _ in rows.run(config, [file], Context()))
small, large = sys.argv[1:]
go(small); before = held(); count = go(large)
print(count, held() - before)
"""


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv", "t.jsonl.gz", "t.parquet"])
def test_memory_does_not_know_how_many_rows_there_are(tmp_path: Path, name: str) -> None:
    made = {"small": 100, "large": 40_000}
    for size, count in made.items():
        table = [{"id": f"r{i}", "text": f"{i} " + "word " * 100} for i in range(count)]
        data = orjson.dumps(table) if name.endswith(".json") else jsonl(table)
        data = delimited(table) if name.endswith(".csv") else parquet(table) if name.endswith("parquet") else data
        (tmp_path / f"{size}-{name}").write_bytes(gzip.compress(data, 1) if name.endswith(".gz") else data)
    paths = [str(tmp_path / f"{size}-{name}") for size in made]
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, check=True)
    count, grown = map(int, done.stdout.split())
    most = 48_000 if name.endswith(".parquet") else 16_000  # Arrow's allocator takes memory by the segment
    assert count == 40_000 and grown < most, f"{grown} kB for {count} rows"


@pytest.fixture
def fake() -> Any:
    with fake_server() as server:
        yield server


def test_a_table_to_answers_by_the_front_door(tmp_path: Path, fake: FakeServer) -> None:
    project = Project(tmp_path)
    project.write("letters.csv", 'name,letter\nAda,"Dear all, the boat is late."\nBo,"Hello, ""friends""!"\nlost\n')
    project.recipe(
        fake.url,
        stages={
            **dict.fromkeys(("read", "chunks", "facts", "cloze", "clean")),
            "rows": {"kind": "ingest.rows", "paths": ["letters.csv"]},
            "answers": {"kind": "generate.ask", "model": "writer", "prompt": "{{name}} writes: {{letter}}"},
        },
    )
    outcome = project.go()
    answers = [orjson.loads(row["body"])["data"] for row in project.records(outcome, "answers")]
    assert [(row["name"], row["letter"]) for row in answers] == [
        ("Ada", "Dear all, the boat is late."),
        ("Bo", 'Hello, "friends"!'),
    ]
    assert all(row["answer"] for row in answers) and fake.stats()["calls"] == 2
    [reject] = project.rejects(outcome, "rows")
    assert (reject["reason"], reject["detail"][:7]) == ("row with another number of cells", "line 4:")
