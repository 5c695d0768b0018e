"""Which sentences and facts the training samples exercise, and how often.

A sentence is exercised by a sample that quotes it alone: it was written about that sentence. A sample that quotes more
(a whole chunk rewritten) exercises those of its sentences whose words it holds, `share` of their content words and
numbers at least: what a rewriting left out is not taught. A fact is exercised by what was made from it, and by samples
that quote its place and hold its words. Held-out samples teach nothing and do not count.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from gristmill.core.records import Chunk, Fact, Quote, Record, Sample
from gristmill.core.stage import PassContext
from gristmill.core.statements import statements
from gristmill.curate.coverage.stages import ExercisedConfig
from gristmill.curate.likeness import said_in
from gristmill.curate.words import Pool, content_words, words

HALF = 0.5
"""Of a sentence's characters: a quote that holds less of it does not quote it."""


@dataclass
class Unit:
    """A sentence or a fact, and how many samples exercise it."""

    path: str
    start: int
    end: int
    text: str
    language: str
    fact: str = ""  # id; empty for a sentence
    samples: int = 0
    pages: tuple[int, ...] = ()

    def words(self) -> list[str]:
        numbers = [word for word in words(self.text) if word[0].isdigit()]
        return numbers + content_words(self.text, self.language)


@dataclass
class Exercised:
    """All units, by document in reading order."""

    config: ExercisedConfig
    units: dict[str, list[Unit]] = field(default_factory=dict)
    longest: dict[str, int] = field(default_factory=dict)  # characters of a document's longest unit
    counted: int = 0
    unquoted: int = 0  # samples that say no place, so that nobody knows what they exercise

    def covered(self, unit: Unit) -> bool:
        return unit.samples >= self.config.samples

    def every(self) -> Iterator[Unit]:
        for units in self.units.values():
            yield from units


def exercised(config: ExercisedConfig, records: Iterable[Record], ctx: PassContext) -> Exercised:
    """Counted over all records: chunks and facts say what there is, training samples what is done with it."""
    found = Exercised(config)
    by_place: defaultdict[str, dict[tuple[int, int, str], Unit]] = defaultdict(dict)
    for record in records:
        for unit in _units(record):
            by_place[unit.path].setdefault((unit.start, unit.end, unit.fact), unit)
    found.units = {path: [units[key] for key in sorted(units)] for path, units in sorted(by_place.items())}
    found.longest = {path: max(unit.end - unit.start for unit in units) for path, units in found.units.items()}
    facts = {unit.fact: unit for unit in found.every() if unit.fact}
    seen: set[str] = set()
    for record in records:
        if isinstance(record, Sample) and record.id not in seen and _counts(config, record):
            seen.add(record.id)
            _count(found, record, facts, ctx)
    return found


def _units(record: Record) -> Iterator[Unit]:
    if isinstance(record, Chunk):
        for start, end in statements(record):
            at, to = record.start + start, record.start + end
            yield Unit(record.path, at, to, record.text[start:end], record.language, pages=record.pages)
    elif isinstance(record, Fact):
        quote = record.quote
        yield Unit(quote.path, quote.start, quote.end, record.statement, record.language, record.id, pages=quote.pages)


def _counts(config: ExercisedConfig, sample: Sample) -> bool:
    taught = sample.marks.get("split", "train") == "train"
    return taught and (config.kinds is None or sample.kind in config.kinds)


def _count(found: Exercised, sample: Sample, facts: dict[str, Unit], ctx: PassContext) -> None:
    found.counted += 1
    found.unquoted += not sample.quotes
    origins = [facts[fact.id] for fact in ctx.ancestors(sample, Fact) if fact.id in facts] if facts else []
    met = {id(unit): unit for unit in origins}
    pool: Pool | None = None
    for quote in dict.fromkeys(sample.quotes):
        quoted = list(_quoted(found, quote))
        alone = sum(not unit.fact for unit in quoted) <= 1
        for unit in quoted:
            if alone and not unit.fact:
                met[id(unit)] = unit
            elif id(unit) not in met:
                pool = pool or Pool.of(said_in(sample), sample.language)
                if _holds(pool, unit) >= found.config.share:
                    met[id(unit)] = unit
    for unit in met.values():
        unit.samples += 1


def _quoted(found: Exercised, quote: Quote) -> Iterator[Unit]:
    """Units of a document, in order of their start, of which the quote holds half or more; or that hold the quote."""
    units = found.units.get(quote.path, [])
    first = bisect_left(units, quote.start - found.longest.get(quote.path, 0), key=lambda unit: unit.start)
    for unit in islice(units, first, None):
        if unit.start >= quote.end:
            return
        shared = min(unit.end, quote.end) - max(unit.start, quote.start)
        if shared > 0 and shared >= HALF * min(unit.end - unit.start, quote.end - quote.start):
            yield unit


def _holds(pool: Pool, unit: Unit) -> float:
    """Share of a unit's words that are said; all of those of a unit without any."""
    wanted = unit.words()
    return sum(pool.holds_name(word) for word in wanted) / len(wanted) if wanted else 1.0
