"""A page of samples as a run made them, unedited, each beside the words of the source that it rests on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from gristmill.core.passages import MARK as RETRIEVAL
from gristmill.core.records import Draft, Message, Sample
from gristmill.runs.folder import RunFolder

MOST, WIDTH = 6, 3_000
"""Samples of a page, and characters of each part."""


def write_page(folder: RunFolder, recipe: str, to: Path, *, writer: str) -> None:
    """`to/recipe.md`, from what the last stage that gives samples (or rows) gave."""
    found = _shown(folder)
    told = f"Unedited, as {writer} wrote them on a small input (`make recipes-1.5b`)."
    body = "\n\n".join(found) if found else "None: everything was dropped. The funnel of the run says why."
    to.mkdir(parents=True, exist_ok=True)
    (to / f"{recipe}.md").write_text(f"# Samples of `recipes/{recipe}.yaml`\n\n{told}\n\n{body}\n", "utf-8")


def _shown(folder: RunFolder) -> list[str]:
    """One of each sort first: sorts in turn, until there are enough."""
    outputs = folder.outputs().values()
    written = {record.id for output in outputs for record in output.only(Sample) if _written(record)}
    for output in reversed(list(outputs)):
        records: list[Sample | Draft] = [*output.only(Sample)]
        records = records or [*output.only(Draft)]
        if records:
            known = {record.id: record for record in records}
            made = [record for record in records if _written(record) or not written.isdisjoint(record.parents)]
            sorts: dict[tuple[str, ...], list[Sample | Draft]] = {}
            for record in made or records:
                sorts.setdefault(_sort(record), []).append(record)
            turns = [each[turn] for turn in range(MOST) for each in sorts.values() if turn < len(each)]
            return [_page(record, known) for record in turns[:MOST]]
    return []


def _written(record: Sample | Draft) -> bool:
    """Whether it is a model's, or a variant made by code; not the text or the row that it was made from."""
    return "variant_of" in record.marks or bool(record.origin and record.origin.calls)


def _sort(record: Sample | Draft) -> tuple[str, ...]:
    """Of one kind those that another prompt made, or that something else was shown, are of another sort."""
    prompt = record.origin.prompt if record.origin else None
    return record.kind, prompt or "", str(record.marks.get(RETRIEVAL))


def _page(record: Sample | Draft, known: dict[str, Sample | Draft]) -> str:
    lines = [f"## {record.kind} `{record.id}`"]
    if isinstance(record, Draft):
        lines += [f"- **{name}**: {_cut(str(value))}" for name, value in record.data.items()]
        return "\n".join(lines)
    lines += list(_said(record))
    for quote in record.quotes[:MOST]:
        pages = f", page {', '.join(map(str, quote.pages))}" if quote.pages else ""
        lines.append(
            f"*Rests on {quote.path}{pages}, characters {quote.start} to {quote.end}:*\n\n{_block(quote.text)}"
        )
    before = known.get(str(record.marks.get("variant_of")))
    if isinstance(before, Sample):
        lines.append(f"*A variant of:*\n\n{_block(before.text or before.answer)}")
    return "\n\n".join(lines)


def _said(sample: Sample) -> Iterator[str]:
    if sample.text:
        about = ", ".join(f"`{sample.text[start:end]}`" for start, end in sample.spans)
        said = f"\n\nlabel: `{sample.label}`" + (f", of {about}" if about else "")
        yield _block(sample.text) + (said if sample.label else "")
    parts = {"": sample.messages, "chosen ": sample.chosen, "rejected ": sample.rejected}
    for name, messages in parts.items():
        yield from (f"**{name}{m.role}**{_masked(m)}\n\n{_block(m.content)}" for m in messages)


def _masked(message: Message) -> str:
    return "" if message.train is True or message.role != "assistant" else " (not learned, or in part)"


def _block(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in _cut(text).splitlines())


def _cut(text: str) -> str:
    return text if len(text) <= WIDTH else text[:WIDTH] + " […]"
