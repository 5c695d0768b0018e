"""Training samples that an exam or a benchmark already holds, dropped: what was taught word for word proves nothing.

A sample is contaminated when it

- asks a benchmark's question, whole and word for word, wherever in it the question stands;
- shares a run of `ngram` words with one that its own source does not hold (13 words as Brown et al. 2020, appendix C,
  have it), and the names beside that run: a benchmark's wording that came along some other way. What the source says
  is there to be learned, and questions after one template differ in their names;
- asks nearly the same: Dice's coefficient of both questions' words, 2·|A∩B| / (|A|+|B|) over multisets, is `likeness`
  or more, and names, numbers and the neighbours of a gap agree.

With another answer, the last two are other questions: `Who built the north tower?` is none about the south tower.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path

from gristmill.core.errors import InputError
from gristmill.core.records import Chunk, Document, Record, Sample
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.curate.duplicates.benchmarks import Asked, held_out, names_in, read_benchmark
from gristmill.curate.duplicates.stages import DecontaminateConfig
from gristmill.curate.words import NAMES_NOUNS, content_words, function_words, plain, words

WHOLE = 5
"""Words of a question from which it is recognised inside other text; a shorter one must be all of a message."""

SAME_ANSWER = 0.5
"""Share of the shorter answer's words and numbers that the other one holds."""

_SENTENCE = re.compile(r"[^.!?\n:]*[^.!?\n]*[.!?]*")
_GAP = re.compile(r"(\w*)\W*_{3,}\W*(\w*)")

Gram = tuple[str, ...]


@dataclass(frozen=True)
class Said:
    """One text of a sample, and what is answered to it where it is a question to the model."""

    text: str
    asks: bool
    answer: str = ""

    @cached_property
    def words(self) -> tuple[str, ...]:
        return tuple(words(self.text))

    def questions(self) -> Iterator[str]:
        """What may be a benchmark's question in other words: a user's message and its sentences; of other text the
        sentences that ask."""
        if self.asks:
            yield self.text
        for hit in _SENTENCE.finditer(self.text):
            if hit[0].strip() and (self.asks or hit[0].rstrip().endswith(("?", "\uff1f"))):
                yield hit[0]


def texts_of(sample: Sample) -> Iterator[Said]:
    """All that training may read of a sample, but for system messages."""
    if sample.text:
        yield Said(sample.text, asks=sample.form == "labelled", answer=sample.label)
    said = (*sample.messages, *sample.chosen)
    for message, following in zip_longest(said, said[1:]):
        if message.role != "system":
            answer = following.content if following and following.role == "assistant" else ""
            yield Said(message.content, asks=message.role == "user", answer=answer)
    yield from (Said(message.content, asks=False) for message in sample.rejected)


@dataclass(frozen=True)
class Hit:
    reason: str
    asked: Asked
    detail: str


class Benchmark:
    """Questions, indexed so that a sample is compared with the few that it may ask."""

    def __init__(self, asked: Iterable[Asked], *, ngram: int, likeness: float) -> None:
        self.ngram, self.likeness = ngram, likeness
        self._whole: dict[str, Asked] = {}
        self._grams: defaultdict[Gram, list[tuple[Asked, frozenset[str]]]] = defaultdict(list)
        self._opening: defaultdict[Gram, list[Asked]] = defaultdict(list)
        for each in asked:
            if self._whole.setdefault(" ".join(each.words), each) is not each:
                continue
            if len(each.words) >= WHOLE:
                self._opening[each.words[:WHOLE]].append(each)
            for at, gram in enumerate(_grams(each.words, ngram)):
                beside = each.names.intersection(each.words[max(0, at - ngram) : at + 2 * ngram])
                self._grams[gram].append((each, beside))
        self._rarity = Counter(word for each in self._whole.values() for word in set(each.words))
        self._sharing: defaultdict[str, list[Asked]] = defaultdict(list)
        for each in self._whole.values():
            for word in self._prefix(each.words):
                self._sharing[word].append(each)

    def __len__(self) -> int:
        return len(self._whole)

    def find(self, sample: Sample, source: Callable[[], str]) -> Hit | None:
        """What of the benchmark the sample holds; None where it is clean. `source` is read only where it decides."""
        for said in texts_of(sample):
            if hit := self._held(said) or self._shared(said, source) or self._near(said, sample.language):
                return hit
        return None

    def _held(self, said: Said) -> Hit | None:
        """A question that stands in the text, whole."""
        if asked := self._whole.get(" ".join(said.words)):
            return Hit("asks an exam question", asked, "word for word")
        for at, opening in enumerate(_grams(said.words, WHOLE)):
            for asked in self._opening.get(opening, ()):
                if said.words[at : at + len(asked.words)] == asked.words:
                    return Hit("asks an exam question", asked, "word for word, inside other text")
        return None

    def _shared(self, said: Said, source: Callable[[], str]) -> Hit | None:
        known: set[Gram] | None = None
        for gram in _grams(said.words, self.ngram):
            for asked, beside in self._grams.get(gram, ()):
                if beside.issubset(said.words) and _same_answer(said, asked):
                    known = set(_grams(words(source()), self.ngram)) if known is None else known
                    if gram not in known:
                        return Hit("shares wording with an exam question", asked, " ".join(gram))
        return None

    def _near(self, said: Said, language: str) -> Hit | None:
        for question in said.questions():
            theirs = words(question)
            for asked in self._candidates(theirs):
                likeness = dice(theirs, asked.words)
                if likeness >= self.likeness and _same_subject(question, asked, language) and _same_answer(said, asked):
                    return Hit("nearly an exam question", asked, f"likeness {likeness:.2f}: {question.strip()[:200]}")
        return None

    def _candidates(self, theirs: Sequence[str]) -> list[Asked]:
        """Those whose rarest words meet the rarest of these: no pair at the threshold is missed (the prefix filter of
        Chaudhuri, Ganti and Kaushik 2006)."""
        found = {id(asked): asked for word in self._prefix(theirs) for asked in self._sharing.get(word, ())}
        return list(found.values())

    def _prefix(self, of: Sequence[str]) -> list[str]:
        """Two sets whose Dice is t share t/(2-t) of either's words at least, so one of all but that many, less one."""
        least = math.ceil(self.likeness / (2 - self.likeness) * len(of) - 1e-9)
        ranked = sorted(of, key=lambda word: (self._rarity[word], word))
        return list(dict.fromkeys(ranked[: len(ranked) - least + 1]))


def _grams(of: Sequence[str], length: int) -> Iterator[Gram]:
    return (tuple(of[at : at + length]) for at in range(len(of) - length + 1))


def dice(one: Sequence[str], other: Sequence[str]) -> float:
    """Likeness of two questions by their words, whatever the order."""
    shared = (Counter(one) & Counter(other)).total()
    return 2 * shared / (len(one) + len(other)) if shared else 0.0


def _same_subject(question: str, asked: Asked, language: str) -> bool:
    """Names and numbers agree, and so do the words beside a gap. A name in lower case is a name still; where every noun
    has a capital, none is told by it."""
    theirs, ours = set(words(question)), set(asked.words)
    common = function_words(language)
    if language not in NAMES_NOUNS and ((names_in(question) - common) - ours or (asked.names - common) - theirs):
        return False
    numbers = [{word for word in of if word[0].isdigit()} for of in (theirs, ours)]
    gaps = [[(plain(a), plain(b)) for a, b in _GAP.findall(text)] for text in (question, asked.text)]
    return numbers[0] == numbers[1] and gaps[0] == gaps[1]


def _same_answer(said: Said, asked: Asked) -> bool:
    """Where either answer is not known, they may be the same."""
    if not said.answer or not asked.answers:
        return True
    given = _telling(said.answer)
    return any(_overlap(given, _telling(answer)) >= SAME_ANSWER for answer in asked.answers)


def _telling(answer: str) -> set[str]:
    """The words that make an answer what it is; all of them where they are all common ones (`no`)."""
    found = {word for word in words(answer) if word[0].isdigit()} | set(content_words(answer, "en"))
    return found or set(words(answer))


def _overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, min(len(one), len(other)))


def inputs(config: DecontaminateConfig, base: Path) -> list[Path]:
    """The files that are compared with, so that another exam makes another result."""
    return [base / path for path in config.files]


def run(config: DecontaminateConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    """Only what is trained on is judged: held-out samples are part of the exam, and go through as they are."""
    given = (asked for path in config.files for asked in read_benchmark(ctx.base / path, config.column))
    benchmark = Benchmark((*given, *held_out(records)), ngram=config.ngram, likeness=config.likeness)
    if not len(benchmark):
        raise InputError(
            "there is no exam to keep the samples apart from",
            "Name benchmark files in `benchmarks`, let an evaluate.exam of this recipe name its `tasks`, or let the "
            "samples come from a curate.split with `test:`.",
        )
    ctx.count(**{"exam questions": len(benchmark)})
    for record in records:
        if not isinstance(record, Sample):
            continue
        hit = benchmark.find(record, partial(_source, record, ctx)) if record.marks.get("split") != "test" else None
        if hit is None:
            yield record
        else:
            yield Dropped(record, hit.reason, f"{hit.asked.where}: {hit.asked.text[:200]} ({hit.detail})")


def _source(sample: Sample, ctx: PassContext) -> str:
    texts = [chunk.text for chunk in ctx.ancestors(sample, Chunk)]
    texts = texts or [document.text for document in ctx.ancestors(sample, Document)]
    return "\n".join(texts or [quote.text for quote in sample.quotes])
