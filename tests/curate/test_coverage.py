"""Coverage: sentences and facts that samples exercise, against counts by hand, and gaps that the next round asks."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest

from gristmill.core.errors import InputError
from gristmill.core.records import Chunk, Fact, Quote, Record, Report, Sample
from gristmill.core.statements import statements, wanted_of
from gristmill.curate.coverage.gaps import run as gaps
from gristmill.curate.coverage.measure import run as measure
from gristmill.curate.coverage.stages import CoverageConfig, GapsConfig
from gristmill.generate.source import source_of

SENTENCES = (
    "The ferry of Orvale carries 70 passengers.",
    "The lighthouse was built by Harm Dekker in 1822.",
    "The bakers sell rye bread on ten mornings.",
    "Nobody has climbed the western cliff.",
)


class Context:
    """Ancestors by id, choices by stage, counts."""

    def __init__(self, *known: Record, stage: str = "gaps") -> None:
        self.known = {record.id: record for record in known}
        self.stage = stage
        self.counts: dict[str, float] = {}

    def ancestors(self, record: Record, kind: type[Record]) -> list[Record]:
        return [self.known[p] for p in record.parents if isinstance(self.known.get(p), kind)]

    def ancestor(self, record: Record, kind: type[Record]) -> Record | None:
        return next(iter(self.ancestors(record, kind)), None)

    def rng(self, record: Record, *salt: object) -> random.Random:
        return random.Random(f"{self.stage}{record.id}{salt}")

    def count(self, **amounts: float) -> None:
        self.counts |= amounts


def page(*sentences: str, path: str = "orvale.md", start: int = 100) -> Chunk:
    text = "# Orvale\n\n" + " ".join(sentences)
    spans = tuple(hit.span() for hit in re.finditer(r"# Orvale|[A-Z][^.#]*\.", text))
    return Chunk(path=path, title="Orvale", text=text, start=start, end=start + len(text), sentences=spans, tokens=40,
                 language="en")  # fmt: skip


PAGE = page(*SENTENCES)


def quote(*sentences: str, chunk: Chunk = PAGE) -> Quote:
    start = chunk.text.index(sentences[0])
    end = chunk.text.index(sentences[-1]) + len(sentences[-1])
    return Quote(text=chunk.text[start:end], start=chunk.start + start, end=chunk.start + end, path=chunk.path)


def told(text: str, *quotes: Quote, **more: Any) -> Sample:
    return Sample(form="text", kind=more.pop("kind", "qa"), text=text, quotes=quotes, parents=(PAGE.id,), **more)


def covered(*records: Record, known: tuple[Record, ...] = (), **config: Any) -> dict[str, Any]:
    ctx = Context(*known)
    settings = CoverageConfig.model_validate({"kind": "curate.coverage", **config})
    (report,) = measure(settings, records, ctx)  # type: ignore[arg-type]
    assert isinstance(report, Report)
    assert ctx.counts["covered"] == report.data["covered"]
    return report.data


def counts(data: dict[str, Any], path: str = "orvale.md") -> list[int]:
    return [samples for _, _, samples, _ in data["coverage"][path]["map"]]


def open_spans(*records: Record, stage: str = "gaps", **config: Any) -> list[str]:
    """The sentences that the given chunks still ask for."""
    settings = GapsConfig.model_validate({"kind": "curate.gaps", **config})
    found = list(gaps(settings, records, Context(stage=stage)))  # type: ignore[arg-type]
    return [
        chunk.text[start:end]
        for chunk in found
        if isinstance(chunk, Chunk)
        for start, end in sorted(wanted_of(chunk) or ())
    ]


def test_a_title_is_no_statement() -> None:
    assert [PAGE.text[start:end] for start, end in statements(PAGE)] == list(SENTENCES)


def test_a_sample_about_one_sentence_exercises_it() -> None:
    asked = told("How many does it carry? 70", quote(SENTENCES[0]))
    again = told("It carries 70.", quote(SENTENCES[0]))
    data = covered(PAGE, asked, again, asked)
    assert counts(data) == [2, 0, 0, 0] and data["covered"] == 0.25
    assert covered(PAGE, asked, again, samples=2)["covered"] == 0.25
    assert covered(PAGE, asked, samples=2)["covered"] == 0.0


def test_a_wide_quote_counts_only_for_what_is_said() -> None:
    whole = quote(SENTENCES[0], SENTENCES[-1])
    passage = told(" ".join(SENTENCES), whole)
    short = told("Orvale's ferry carries seventy (70) passengers, and bakers sell rye bread on ten mornings.", whole)
    assert counts(covered(PAGE, passage)) == [1, 1, 1, 1]
    assert counts(covered(PAGE, short)) == [1, 0, 1, 0]
    assert counts(covered(PAGE, short, share=0)) == [1, 1, 1, 1]


def test_what_does_not_teach_does_not_count() -> None:
    held = told("It carries 70.", quote(SENTENCES[0]), marks={"split": "test"})
    other = told("It carries 70.", quote(SENTENCES[1]), kind="passage")
    nowhere = told("It carries 70 passengers.")
    data = covered(PAGE, held, other, nowhere, kinds=["qa"])
    assert data["covered"] == 0 and data["samples"] == 1


def test_facts_are_units_too() -> None:
    facts = [
        Fact(statement=f"{text} Indeed.", quote=quote(text), language="en", parents=(PAGE.id,)) for text in SENTENCES
    ]
    made = told("Who built it? Harm Dekker", quote(SENTENCES[1])).model_copy(update={"parents": (facts[1].id,)})
    held = told("Indeed the bakers sell rye bread on ten mornings.", quote(SENTENCES[2]))
    bare = told("Nobody.", quote(SENTENCES[3]))
    data = covered(*facts, made, held, bare, known=tuple(facts))
    assert counts(data) == [0, 1, 1, 0] and data["coverage"]["orvale.md"]["facts"] == 4
    left = list(gaps(GapsConfig(kind="curate.gaps"), [*facts, made, held, bare], Context(*facts)))  # type: ignore[arg-type]
    assert left == [facts[0], facts[3]]


def test_documents_are_counted_apart_and_shared_sentences_once() -> None:
    other = page(*SENTENCES[:2], path="tessmoor.md")
    overlapping = page(*SENTENCES[2:], start=PAGE.start + PAGE.text.index(SENTENCES[2]) - len("# Orvale\n\n"))
    data = covered(PAGE, other, overlapping, told("It carries 70.", quote(SENTENCES[0])))
    assert counts(data) == [1, 0, 0, 0] and counts(data, "tessmoor.md") == [0, 0]
    assert data["covered"] == pytest.approx(1 / 6) and data["units"] == 6


def test_nothing_to_cover_is_an_error() -> None:
    with pytest.raises(InputError, match="nothing to cover"):
        covered(told("It carries 70."))


def test_gaps_are_what_coverage_counts_as_open() -> None:
    asked = told("How many does it carry? 70", quote(SENTENCES[0]))
    assert open_spans(PAGE) == list(SENTENCES)
    assert open_spans(PAGE, asked) == list(SENTENCES[1:])
    assert open_spans(PAGE, asked, samples=2) == list(SENTENCES)
    every = [told(f"{text}", quote(text)) for text in SENTENCES]
    assert open_spans(PAGE, *every) == []


def test_gaps_keep_the_chunk_and_draw_anew_each_round() -> None:
    (marked,) = gaps(GapsConfig(kind="curate.gaps", most=2), [PAGE], Context())  # type: ignore[arg-type]
    assert marked.id == PAGE.id and len(wanted_of(marked) or ()) == 2  # type: ignore[union-attr, arg-type]
    drawn = {tuple(open_spans(PAGE, most=2, stage=f"gaps.{n}")) for n in range(2, 12)}
    assert len(drawn) > 2 and all(len(spans) == 2 for spans in drawn)
    assert open_spans(PAGE, most=2, stage="gaps.2") == open_spans(PAGE, most=2, stage="gaps.2")


def test_a_writer_sees_the_gaps_alone_and_what_was_said_before_them() -> None:
    asked = [told(text, quote(text)) for text in (SENTENCES[0], SENTENCES[2])]
    (marked,) = gaps(GapsConfig(kind="curate.gaps"), [PAGE, *asked], Context())  # type: ignore[arg-type]
    source = source_of(marked, Context())  # type: ignore[arg-type]
    assert [(s.number, s.text) for s in source.sentences] == [(1, SENTENCES[1]), (2, SENTENCES[3])]
    assert source.sentences[1].before.endswith(SENTENCES[2]) and source.sentences[0].quote == quote(SENTENCES[1])
