"""What people decided about samples: approve, reject, edit. Strict: a slip in a sheet must not pass for a decision.

An edited sample is a new record, made from the one that was shown: its parent is that sample, its quotes stay. Where
only parts of an edited text were trained on, these parts are found again by their words; if one is gone, or stands
there twice, the sample is dropped with that reason.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from gristmill.core.cells import read_named
from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Message, Origin, Record, Sample, Span
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.curate.review.sheet import HEAD, texts_of
from gristmill.curate.review.stages import ReviewConfig

DECISIONS = ("approve", "reject", "edit")
NAMED = 5
"""Unknown ids that are told by name."""


@dataclass(frozen=True)
class Decision:
    id: str
    what: str  # approve, reject, edit; empty: none yet
    note: str
    texts: dict[str, str]  # as they stand in the sheet; an emptied one too
    where: str


def inputs(config: ReviewConfig, base: Path) -> list[Path]:
    return [base / config.decisions]


def read_decisions(path: Path) -> dict[str, Decision]:
    """By the id of the sample. Rows without a decision are read too: a text that was changed there is a slip."""
    found: dict[str, Decision] = {}
    for number, row in _rows(path):
        where = f"{path.name}, row {number}"
        decision = _decision(row, where)
        if decision.id in found:
            raise InputError(f"{where}: sample {decision.id} stands there twice", "Keep one of the two rows.")
        found[decision.id] = decision
    if not any(decision.what for decision in found.values()):
        raise InputError(f"{path.name} holds no decision", f"Write {', '.join(DECISIONS)} into its column `decision`.")
    return found


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Each row with its number, without the empty ones that a spreadsheet leaves behind."""
    try:
        text = path.read_text("utf-8-sig")
        if path.suffix.lower() == ".csv":
            named = enumerate(read_named(text, strict=True), 1)
            yield from (each for each in named if any("".join(cell or "").strip() for cell in each[1].values()))
        else:
            yield from enumerate((orjson.loads(line) for line in text.split("\n") if line.strip()), 1)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"the decisions in {path.name} cannot be read: {error}", "Give jsonl or csv.") from error


def _decision(row: Any, where: str) -> Decision:
    if not isinstance(row, dict) or not row.get("id") or "decision" not in row:
        raise InputError(
            f"{where}: a decision has `id` and `decision`", "Start from `gristmill export --format review`."
        )
    plain = {str(name): _text(value) for name, value in row.items() if value is not None}
    what = plain.get("decision", "").strip().lower()
    if what not in (*DECISIONS, ""):
        raise InputError(f"{where}: unknown decision {what!r}", f"Write one of {', '.join(DECISIONS)}, or nothing.")
    texts = {name: text for name, text in plain.items() if name not in HEAD}
    return Decision(plain["id"].strip(), what, plain.get("note", "").strip(), texts, where)


def _text(value: Any) -> str:
    return str(value).replace("\r\n", "\n").replace("\r", "\n")


def run(config: ReviewConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    decisions = read_decisions(ctx.base / config.decisions)
    _say_unknown(config, decisions, records, ctx)
    for record in records:
        if isinstance(record, Sample):
            yield _decided(config, record, decisions.get(record.id), ctx)


def _say_unknown(
    config: ReviewConfig, decisions: dict[str, Decision], records: Iterable[Record], ctx: PassContext
) -> None:
    given = [name for name, decision in decisions.items() if decision.what]
    here = {record.id for record in records}
    unknown = [name for name in given if name not in here]
    if len(unknown) == len(given):
        raise InputError(
            f"none of the {len(given)} decisions in {config.decisions} is about a sample that is here",
            "Export the stage whose samples this one takes, and decide about those.",
        )
    if unknown:
        ctx.count(**{"decisions on samples that are not here": len(unknown)})
        more = f" and {len(unknown) - NAMED} more" if len(unknown) > NAMED else ""
        told = f"{', '.join(unknown[:NAMED])}{more}"
        ctx.warn(f"{len(unknown)} of {len(given)} decisions are about samples that are not here: {told}")


def _decided(config: ReviewConfig, sample: Sample, decision: Decision | None, ctx: PassContext) -> Record | Dropped:
    what = decision.what if decision else ""
    changed = _changed(sample, decision) if decision else {}
    if decision is None or not what:
        return Dropped(sample, "not reviewed") if config.undecided == "drop" else sample
    ctx.count(**{what: 1})
    marked = sample.marked(review=what, **({"review_note": decision.note} if decision.note else {}))
    if not config.drop or what == "approve":
        return marked
    if what == "reject":
        return Dropped(sample, "rejected in review", decision.note)
    try:
        return edited(marked, changed, stage=ctx.stage)
    except Reject as reject:
        return Dropped(sample, reject.reason, reject.detail)


def _changed(sample: Sample, decision: Decision) -> dict[str, str]:
    """The texts that the sheet has otherwise than the sample."""
    own = {name: _text(text) for name, text in texts_of(sample).items()}
    if strange := [name for name, text in decision.texts.items() if text and name not in own]:
        raise InputError(f"{decision.where}: sample {sample.id} has no {strange[0]}", f"It has {', '.join(own)}.")
    changed = {name: text for name, text in decision.texts.items() if text != own.get(name, "")}
    if changed and decision.what in ("", "approve"):
        hint = "Write edit to take the change, or put the text back."
        raise InputError(f"{decision.where}: {next(iter(changed))} was changed, but not edited by decision", hint)
    if decision.what == "edit" and not changed:
        raise InputError(f"{decision.where}: nothing was edited", "Change a text, or write approve.")
    if decision.what == "edit" and (emptied := [name for name, text in changed.items() if not text]):
        hint = "Put the text back, or write reject."
        raise InputError(f"{decision.where}: {emptied[0]} was emptied, and an edit leaves no text out", hint)
    return changed


def edited(sample: Sample, changed: dict[str, str], *, stage: str) -> Sample:
    """The sample with other texts, by the names that `texts_of` gives them."""
    whole = {name: changed.get(name, text) for name, text in texts_of(sample).items()}
    texts = iter(whole.values())
    fields: dict[str, Any] = {name: next(texts) for name in ("text", "label") if getattr(sample, name)}
    for name in ("messages", "chosen", "rejected"):
        fields[name] = tuple(_message(message, next(texts)) for message in getattr(sample, name))
    if sample.text:
        fields["train"] = _moved(sample.train, sample.text, fields["text"])
        fields["spans"] = _moved(sample.spans, sample.text, fields["text"])
    data = {**sample.model_dump(), **fields, "parents": (sample.id,), "origin": Origin(stage=stage)}
    try:
        return Sample.model_validate(data)
    except ValidationError as error:
        raise Reject("edited to no sample", "; ".join(problem["msg"] for problem in error.errors())) from error


def _message(message: Message, text: str) -> Message:
    return message.model_copy(update={"content": text, "train": _moved(message.train, message.content, text)})


def _moved(spans: Any, before: str, after: str) -> Any:
    """Spans of a text in another: each by its words, which must stand there once."""
    if isinstance(spans, bool) or before == after:
        return spans
    found: list[Span] = []
    for start, end in spans:
        words = before[start:end]
        if after.count(words) != 1:
            raise Reject("edited where a part of the text is trained on", words)
        found.append((after.index(words), after.index(words) + len(words)))
    return tuple(found)
