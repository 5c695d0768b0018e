"""The grounding gate: what a sample claims stands, word for word, in the document it rests on.

Quotes are compared at their exact offsets, never searched for. An answer is held against its quotes (names also against
its question), a text against the whole piece it was made from; an answer that is rejected, or rated as undesirable, may
say what it likes. The gate is strict where it can be sure: a rejected good sample costs one sample, an accepted
invention is taught. Of a sample in another language than its source it can be sure of quotes and numbers alone: words
differ, and so do names (Köln, Cologne).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gristmill.core.errors import Reject
from gristmill.core.passages import uncited
from gristmill.core.records import Chunk, Document, Quote, Record, Sample
from gristmill.core.stage import StepContext
from gristmill.core.thoughts import parted
from gristmill.curate.language import differ
from gristmill.curate.numbers import digits, spelled, supported, unsupported, untranslated
from gristmill.curate.stages import GroundConfig
from gristmill.curate.words import NAMES_NOUNS, Pool, content_words, fold, function_words, tidy

_TOKEN = re.compile(r"\w+")
_CODE = re.compile(r"[\d_]*[^\W\d_].*\d|\D*\d.*[A-Z]")  # B2, 3D and 0x1F are; 19th and 1990s are numbers
_SENTENCE_END = re.compile(r"[.!?:;…\n\"“„«»(\[•*-]\s*$")
_TITLES = "Dr|dr|Mr|Mrs|Ms|Prof|St|Mme|Mlle|Nr|No|Sr|Jr|Hr|Fr|Ing|Dipl"
_INITIAL = re.compile(r"(?:^|[\s(])[^\W\d_]\.\s*$")
_TITLED = re.compile(rf"(?:^|[\s(])(?:{_TITLES})\.\s*$")
_DETERMINERS = """
    der die das den dem des ein eine einen einem einer eines kein keine keinen keinem keiner im am zum zur
    vom beim ins ans seine seinen seinem seiner ihre ihren ihrem ihrer diese dieser dieses diesen diesem
    jede jeder jedes jeden pro
    """
_BEFORE_NOUN = frozenset(_DETERMINERS.split())

AHEAD = 80
"""Characters before a word that tell whether it opens a sentence, or follows a title or a number."""


@dataclass(frozen=True)
class Source:
    """Where a sample came from: the text at its place in the document, and what stands around it."""

    path: str
    start: int
    text: str
    around: str  # title, headings, path and page numbers: code writes them into context lines
    language: str

    def holds(self, quote: Quote) -> bool:
        start, end = quote.start - self.start, quote.end - self.start
        return quote.path == self.path and 0 <= start < end and self.text[start:end] == quote.text


def sources(record: Record, ctx: StepContext) -> list[Source]:
    """The chunks and the documents of a record, as far as it has them, the nearest first."""
    found = []
    for chunk in ctx.ancestors(record, Chunk):
        around = "\n".join([chunk.title, *chunk.headings, chunk.path, *map(str, chunk.pages)])
        found.append(Source(chunk.path, chunk.start, chunk.text, around, chunk.language))
    for document in ctx.ancestors(record, Document):
        around = f"{document.title}\n{document.path}"
        found.append(Source(document.path, 0, document.text, around, document.language))
    return found


def _names(text: str, language: str, *, openers: bool) -> list[str]:
    """The words of a text that name something: capitals and codes like B2, as written.

    A word that opens a sentence is none where it is a function word, or `openers` is false. German nouns after an
    article, a number or the like are none either: the share of content words looks after them.
    """
    found, before = [], ""
    small = function_words(language)
    text = tidy(text)
    begins = len(text) - len(text.lstrip())
    capitals = not text.isupper()  # where all is in capitals, they tell nothing
    for hit in _TOKEN.finditer(text):
        word, ahead = hit[0], text[max(0, hit.start() - AHEAD) : hit.start()]
        little = fold(word) in small
        ends = bool(_SENTENCE_END.search(ahead)) and not _TITLED.search(ahead)
        opens = hit.start() <= begins or (ends and (little or not _INITIAL.search(ahead)))
        speaker = opens and len(word) == 1 and text[hit.end() : hit.end() + 1] == ":"  # A: and B: in a talk
        code = bool(_CODE.match(word))
        noun = language in NAMES_NOUNS and (before in _BEFORE_NOUN or bool(re.search(r"\d[\s.]*$", ahead)))
        if (
            ((word[0].isupper() and capitals) or code)
            and not (opens and (not openers or little))
            and not noun
            and not speaker
            and word != "I"
        ):
            found.append(word)
        before = word.lower()
    return found


def _numerals(text: str, language: str) -> set[str]:
    return {word for number in spelled(text, language) for word in number.written.split("-")}


def _missing_name(text: str, pool: Pool, language: str, *, openers: bool = True) -> str:
    numerals = _numerals(text, language)
    names = (name for name in _names(text, language, openers=openers) if fold(name) not in numerals)
    return next((name for name in names if not pool.holds_name(fold(name))), "")


def _share(text: str, rests_on: str, also: str, language: str) -> float:
    """Share of a text's content words and numbers that its ground holds; 1 for a text without any. Words of the
    question, `also`, count neither way: who repeats them tells nothing."""
    pool, asked = Pool.of(rests_on, language), Pool.of(also, language)
    values, numerals = supported(f"{rests_on}\n{also}", language), _numerals(text, language)
    told = [word for word in content_words(text, language) if word not in numerals and not asked.holds(word)]
    held = [pool.holds(word) for word in told]
    held += [not values.isdisjoint(number.values) for number in [*digits(text, language), *spelled(text, language)]]
    return sum(held) / len(held) if held else 1.0


def _check_claims(text: str, rests_on: str, also: str, where: str, config: GroundConfig, language: str) -> None:
    """`rests_on` must hold the numbers; the names may stand in `also` as well, whose words prove nothing."""
    pool = Pool.of(f"{rests_on}\n{also}", language)
    if config.numbers and (number := unsupported(text, rests_on, language)):
        raise Reject(f"number not in {where}", number)
    if config.names and (name := _missing_name(text, pool, language)):
        raise Reject(f"name not in {where}", name)
    share = _share(text, rests_on, also, language)
    if share < config.share:
        raise Reject(f"answer not in {where}", f"{share:.0%} of its words: {text[:200]}")


def _check_question(sample: Sample, source: str, config: GroundConfig) -> None:
    if number := unsupported(sample.question, source, sample.language):
        raise Reject("number of the question not in source", number)
    if config.names and sample.language not in NAMES_NOUNS:  # German asks with nouns of its own: In welchem Jahr ...
        name = _missing_name(sample.question, Pool.of(source, sample.language), sample.language, openers=False)
        if name:
            raise Reject("name of the question not in source", name)


async def run(config: GroundConfig, record: Sample, ctx: StepContext) -> list[Record]:
    found = sources(record, ctx)
    if not found:
        raise Reject("no source")
    holders = [_holder(quote, found) for quote in record.quotes]
    rests_on = dict.fromkeys([found[0], *holders])
    if any(differ(source.language, record.language) for source in rests_on):
        quoted_in = [(quote.text, holder.language) for quote, holder in zip(record.quotes, holders, strict=True)]
        _check_translated(record, list(rests_on), quoted_in, config)
        return [record]
    whole = "\n".join(f"{source.text}\n{source.around}" for source in rests_on)
    if record.text:
        _check_claims(record.text, whole, "", "source", config, record.language)
        return [record]
    if not record.quotes:
        raise Reject("no quote")
    if config.question:
        _check_question(record, whole, config)
    if record.desirable is False:
        return [record]
    quoted = "\n".join(quote.text for quote in record.quotes)
    asked = "\n".join(message.content for message in record.messages if message.role == "user")
    for answer in _answers(record):
        _check_claims(answer, quoted, asked, "quote", config, record.language)
    return [record]


def _holder(quote: Quote, found: list[Source]) -> Source:
    holder = next((source for source in found if source.holds(quote)), None)
    if holder is None:
        raise Reject("quote not in source", quote.text[:200])
    return holder


def _check_translated(
    sample: Sample, rests_on: list[Source], quoted: list[tuple[str, str]], config: GroundConfig
) -> None:
    """The numbers of a sample whose source is in another language, each side's read as its own language writes them."""
    whole = _values((f"{source.text}\n{source.around}", source.language) for source in rests_on)
    if not sample.text and not quoted:
        raise Reject("no quote")
    if config.question and not sample.text:
        _check_values(sample.question, whole, "number of the question not in source", sample.language)
    if not config.numbers or sample.desirable is False:
        return
    if sample.text:
        return _check_values(sample.text, whole, "number not in source", sample.language)
    values = _values(quoted)
    for answer in _answers(sample):
        _check_values(answer, values, "number not in quote", sample.language)


def _values(texts: Iterable[tuple[str, str]]) -> frozenset[str]:
    return frozenset(value for text, language in texts for value in supported(text, language))


def _check_values(text: str, values: frozenset[str], reason: str, language: str) -> None:
    if number := untranslated(text, values, language):
        raise Reject(reason, number)


def _answers(sample: Sample) -> list[str]:
    """Every answer that is learned, without the thoughts before it and the passage it cites."""
    learned = [m.content for m in sample.messages if m.role == "assistant" and m.train]
    return [uncited(parted(text, sample).answer, sample) for text in learned or [sample.answer]]
