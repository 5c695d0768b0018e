"""Samples as files for other tools: one per format and split, JSONL and Parquet, with a dataset card.

A sample that a format cannot say is refused with its reason: counted, listed in `refused.jsonl` and on the card. A
format that would come out empty is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.core.errors import InputError, Reject
from gristmill.core.files import atomic, write_text
from gristmill.core.records import File, Origin, Record, Sample
from gristmill.core.stage import PassContext, PassResult, samples
from gristmill.curate.card import CardFacts, Provenance, Refused, write_card
from gristmill.curate.formats import FORMATS, Row
from gristmill.curate.packed import Packer, Refuse
from gristmill.curate.stages import ExportConfig, FileType

SPLITS = ("train", "validation", "test")
PACKED = "packed"

_TEXT, _SPANS = pa.string(), pa.list_(pa.list_(pa.int64()))
_MESSAGES = pa.list_(pa.struct({"role": _TEXT, "content": _TEXT}))
_MASKED = pa.list_(pa.struct({"role": _TEXT, "content": _TEXT, "train": pa.bool_(), "spans": _SPANS}))
_ABOUT = {"kind": _TEXT, "language": _TEXT}
_SCHEMAS = {
    "openai": pa.schema({"messages": _MESSAGES}),
    "sharegpt": pa.schema({"id": _TEXT, "conversations": pa.list_(pa.struct({"from": _TEXT, "value": _TEXT}))}),
    "alpaca": pa.schema(dict.fromkeys(("id", "instruction", "input", "output", "system"), _TEXT)),
    "chatml": pa.schema({"id": _TEXT, "text": _TEXT, "train": _SPANS}),
    "text": pa.schema({"id": _TEXT, "text": _TEXT, "train": _SPANS}),
    "masked": pa.schema({"id": _TEXT, "messages": _MASKED, **_ABOUT}),
    "preference": pa.schema({"id": _TEXT, **dict.fromkeys(("prompt", "chosen", "rejected"), _MESSAGES), **_ABOUT}),
    "rating": pa.schema({"id": _TEXT, "prompt": _MESSAGES, "completion": _MESSAGES, "label": pa.bool_(), **_ABOUT}),
    PACKED: pa.schema(
        {**dict.fromkeys(("input_ids", "labels", "position_ids"), pa.list_(pa.int32())), "ids": pa.list_(_TEXT)}
    ),
    "labelled": pa.schema({"id": _TEXT, "text": _TEXT, "label": _TEXT, "spans": _SPANS, **_ABOUT}),
}


@dataclass(frozen=True)
class Exported:
    """What was written: the files, rows by format and split, and what a format could not say."""

    folder: Path
    files: list[Path]
    rows: dict[str, dict[str, int]]
    refused: list[Refused]


def write_export(
    pool: Sequence[Sample],
    folder: Path,
    *,
    formats: Sequence[str],
    files: Sequence[str] = ("jsonl", "parquet"),
    title: str = "",
    license: str = "",
    provenance: Provenance | None = None,
    packer: Packer | None = None,
) -> Exported:
    """Write `<format>/<split>.<file>`, `refused.jsonl` and `README.md` into `folder`, in place of an earlier export."""
    if not pool:
        raise InputError(
            "there is nothing to export", "Look at the funnel of the stages before: what dropped the samples?"
        )
    refused: list[Refused] = []
    tables = {name: _table(name, pool, refused, packer) for name in formats}
    for name, splits in tables.items():
        if not splits:
            reasons = Counter(item.reason for item in refused if item.format == name)
            message = f"no sample can be written as {name}: " + ", ".join(
                f"{r} ({n})" for r, n in reasons.most_common()
            )
            raise InputError(
                message,
                "Choose a format for these forms: masked or openai for chats, else text, preference, rating, labelled.",
            )
    _clear(folder)
    written = []
    for name, splits in tables.items():
        for split, rows in splits.items():
            written += [_write(folder / name / f"{split}.{file}", name, rows) for file in files]
    written.append(folder / "refused.jsonl")
    _write_jsonl(folder / "refused.jsonl", [vars(item) for item in refused])
    opened = "parquet" if "parquet" in files else "jsonl"
    facts = CardFacts(
        title=title or folder.name,
        license=license,
        rows={name: {split: len(rows) for split, rows in splits.items()} for name, splits in tables.items()},
        files={name: {split: f"{name}/{split}.{opened}" for split in splits} for name, splits in tables.items()},
        samples=pool,
        refused=refused,
        provenance=provenance or _of_samples(pool),
    )
    write_text(folder / "README.md", write_card(facts))
    return Exported(folder, [*written, folder / "README.md"], {k: dict(v) for k, v in facts.rows.items()}, refused)


def _table(name: str, pool: Sequence[Sample], refused: list[Refused], packer: Packer | None) -> dict[str, list[Row]]:
    """Rows by split, in the order of the samples; what the format cannot say goes to `refused`."""

    def refuse(sample: Sample, reject: Reject) -> None:
        refused.append(Refused(sample.id, name, reject.reason, reject.detail))

    splits: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    for sample in pool:
        splits[str(sample.marks.get("split", "train"))].append(sample)
    write = packer.rows if name == PACKED and packer else partial(_each, FORMATS[name])
    tables = {split: write(held, refuse) for split, held in splits.items()}
    return {split: rows for split, rows in tables.items() if rows}


def _each(write: Callable[[Sample], Row], held: Sequence[Sample], refuse: Refuse) -> list[Row]:
    rows = []
    for sample in held:
        try:
            rows.append(write(sample))
        except Reject as reject:
            refuse(sample, reject)
    return rows


def _clear(folder: Path) -> None:
    """Remove what an earlier export wrote, and nothing else: the folder may be anyone's."""
    for name in ("refused.jsonl", "README.md"):
        (folder / name).unlink(missing_ok=True)
    for name in (*FORMATS, PACKED):
        for split in SPLITS:
            for file in get_args(FileType):
                (folder / name / f"{split}.{file}").unlink(missing_ok=True)


def _write(path: Path, name: str, rows: list[Row]) -> Path:
    if path.suffix == ".jsonl":
        _write_jsonl(path, rows)
    else:
        with atomic(path) as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMAS[name]), file, compression="zstd")
    return path


def _write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with atomic(path) as file:
        for row in rows:
            file.write(orjson.dumps(row) + b"\n")


def _of_samples(pool: Sequence[Sample]) -> Provenance:
    paths = {quote.path: "" for sample in pool for quote in sample.quotes}
    return Provenance(paths, tuple(sample.origin for sample in pool if sample.origin))


def _provenance(pool: Sequence[Sample], ctx: PassContext) -> Provenance:
    """Source hashes from the files the samples descend from; a conversation stands for the sample it began with."""
    known = _of_samples(pool)
    origins: list[Origin] = []
    files = {}
    for sample in pool:
        file, member = ctx.ancestor(sample, File), None
        if file:
            files[file.path] = file.sha256
        if sample.kind == "conversation":
            member = ctx.ancestor(sample, Sample)
        maker = (member or sample).origin
        origins += [maker] if maker else []
    return Provenance({**known.sources, **files}, tuple(origins))


def _chosen(where: dict[str, list[str]], pool: Sequence[Sample]) -> list[Sample]:
    if unknown := [mark for mark in where if pool and not any(mark in sample.marks for sample in pool)]:
        raise InputError(
            f"no sample has the mark {', '.join(unknown)}", "Correct `where`, or place the stage behind its judge."
        )
    return [sample for sample in pool if all(sample.marks.get(mark) in among for mark, among in where.items())]


def run(config: ExportConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    pool = samples(records)
    chosen = _chosen(config.where or {}, pool)
    folder = ctx.run_folder / "exports" / config.name
    if left := len(pool) - len(chosen):
        ctx.count(**{"samples not marked so": left})
    if chosen or not pool:
        _export(config, chosen, folder, ctx)
    else:
        _clear(folder)
    yield from pool


def _export(config: ExportConfig, pool: list[Sample], folder: Path, ctx: PassContext) -> None:
    done = write_export(
        pool,
        folder,
        formats=config.formats,
        files=config.files,
        title=config.title or config.name,
        license=config.license,
        provenance=_provenance(pool, ctx),
        packer=Packer.of(config, ctx.base),
    )
    for item in done.refused:
        ctx.count(**{f"{item.format}: {item.reason}": 1})
    ctx.count(**{f"{name}: rows": sum(splits.values()) for name, splits in done.rows.items()})
