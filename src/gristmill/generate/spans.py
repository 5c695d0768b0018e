"""Which words of a sentence are worth asking for: dates, years, times, quantities, names, quoted terms.

Code picks the answer, so that a small model has only a question to write, and a cloze needs no model at all. Quality
goes before quantity: a span that occurs twice in its sentence gives its answer away and is left out, "A and B" is one
answer, a number keeps its unit only when the unit is a known one ("412 metres", but "three" of "three stone bridges").
Word shapes carry across languages; the word lists hold English, German, French and Spanish.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from gristmill.generate import lexicon as words

Kind = Literal["date", "year", "time", "quantity", "quoted", "name", "number", "term", "noun"]

_BEST_FIRST: tuple[Kind, ...] = ("date", "year", "quantity", "time", "quoted", "name", "number", "term", "noun")
_LONGEST = 60  # characters of an answer
_EDGE = r"(?<![A-Za-z0-9.,:/_-])"  # a number starts here: not inside an identifier, a version or another number
_END = r"(?![A-Za-z0-9_/]|[.,:-]\d|-[A-Za-z])"
_DIGITS = r"(?:\d{1,3}(?:[,.\u00a0\u202f ]\d{3})+(?:[.,]\d+)?|\d+(?:[.,]\d+)?)"
_UNIT = rf"(?:\s?(?:%|°[CF]?|€|\$|£)|[\s\u00a0-]?(?:{words.UNITS})\b)"
_YEAR = r"(?:1\d|20|21)\d\d"
_MONTH = rf"(?:{words.MONTHS})"
_DAY = r"\d{1,2}(?:st|nd|rd|th|er|\.|º)?"
_HALF = r"(?:[ap]\.?m\b\.?|Uhr\b|o[\u2019']clock)"
_QUOTE = '[\u201c\u00ab\u201e"]\\s?([^\u201c\u201d\u00ab\u00bb\u201e"]{2,60}?)\\s?[\u201d\u00bb\u201c"]'

_TERMS: dict[str, tuple[re.Pattern[str], ...]] = {
    "en": (
        re.compile(
            r"\b(?:called|named|nicknamed|known as|made (?:of|from|out of)|built (?:of|from)|carved from|painted)\s"
            r"(?!after\b|for\b)"
            r"((?:the |an? )?[a-z-]+(?: [a-z-]+){0,3}?)"
            r"(?=[.,;:]|\s(?:and|or|which|that|who|by|in|on|for|from|at|with|to|because|since|when|after|until|but)\b)"
        ),
        re.compile(
            r"\b(?:is|was|are|were|became)\s((?:an?|the) [a-z-]+(?: "
            r"(?!(?:who|which|that|of|in|before|then|once|now)\b)[a-z-]+){0,2})"
            r"(?=[.,;]|$)"
        ),
    )
}
_WORD = re.compile(r"[^\W_]+(?:[\u2019'.&-][^\W_]+)*\.?")
_SAID = re.compile(r"\w")
_BETWEEN_NAMES = re.compile(rf"\s|\s(?:{words.IN_NAMES})\s(?:(?:the|der|den|la|le|los|las)\s)?|\.\s")
_PLACE_FIRST = re.compile(r"\W*(?:In|At|Near|From|On|By|To|Under|After|Before|À|En|Bei|Nach)\s(?:the\s)?")
_JOINED = re.compile(r",\s|,?\s(?:and|und|et|y)\s|\s&\s")


@dataclass(frozen=True)
class AnswerSpan:
    """Part of a sentence that can be asked for: `sentence[start:end] == text`."""

    start: int
    end: int
    text: str
    kind: Kind


@cache
def _patterns(language: str) -> tuple[tuple[Kind, re.Pattern[str]], ...]:
    """The patterns of a language, from the surest down; group 1 is the answer."""
    spoken = words.number_words(language)
    amount = rf"(?:{_DIGITS}|\b(?:{spoken})(?:[- ](?:and |und |et |y )?(?:{spoken}))*)"
    fence = rf"(?:between\s{amount}\sand|zwischen\s{amount}\sund|{amount}(?:\s?[\u2013-]|\s(?:to|bis|à|a)))"
    span = rf"{fence}\s?{amount}"
    expressions: list[tuple[Kind, str]] = [
        ("quoted", _QUOTE),
        ("date", rf"{_EDGE}(\d{{4}}-\d\d-\d\d|\d{{1,2}}[./]\d{{1,2}}[./]\d{{4}}){_END}"),
        ("date", rf"{_EDGE}({_DAY}\s(?:of\s|de\s)?{_MONTH}(?:,?\s(?:de\s)?{_YEAR})?){_END}"),
        ("date", rf"\b({_MONTH}\s{_DAY}(?:,?\s{_YEAR})?|{_MONTH}\s(?:de\s)?{_YEAR}){_END}"),
        ("time", rf"{_EDGE}(\d{{1,2}}[:h]\d\d(?:\s?{_HALF})?|\d{{1,2}}(?:\.\d\d)?\s?{_HALF}){_END}"),
        ("quantity", rf"{_EDGE}([€$£]\s?{_DIGITS}){_END}"),
        ("quantity", rf"{_EDGE}({span}{_UNIT}){_END}"),
        ("quantity", rf"{_EDGE}((?:[\u2212-])?{amount}{_UNIT}){_END}"),
        ("date", rf"\b((?:between|from)\s{_YEAR}\s(?:and|to)\s{_YEAR}){_END}"),
        ("date", rf"{_EDGE}({_YEAR}\s?[\u2013-]\s?{_YEAR}){_END}"),
        ("year", rf"\b(?:{words.BEFORE_YEAR})\s({_YEAR}){_END}"),
        ("year", rf"{_EDGE}({_YEAR}){_END}(?!\s\w)"),
        ("date", rf"\b((?-i:{words.DAYS}))\b"),
    ]
    numbers: list[tuple[Kind, str]] = [
        ("number", rf"{_EDGE}({span}){_END}"),
        ("number", rf"{_EDGE}({amount}){_END}"),
    ]
    return tuple((kind, re.compile(text, re.IGNORECASE)) for kind, text in expressions + numbers)


def pick(sentence: str, *, language: str = "en", names: frozenset[str] = frozenset()) -> list[AnswerSpan]:
    """The spans of a sentence that make good answers, best first. `names`: see `names_in`; they tell whether the first
    word of a sentence is capitalised for more than its place."""
    taken: list[AnswerSpan] = []
    *sure, ranges, numbers = _patterns(language)
    for kind, pattern in sure:
        _take(taken, (_span(sentence, *hit.span(1), kind) for hit in pattern.finditer(sentence)))
    _take(taken, _names(sentence, language, names))  # before bare numbers, for "Gate 4"
    for _, pattern in (ranges, numbers):
        _take(taken, (_span(sentence, *hit.span(1), "number") for hit in pattern.finditer(sentence)))
    for pattern in _TERMS.get(language, ()):
        _take(taken, (_span(sentence, *hit.span(1), "term") for hit in pattern.finditer(sentence)))
    good = sorted((span for span in taken if _good(span, sentence)), key=_rank)
    return [span for span in good if span.kind != "noun"] or good[:1]


def _rank(span: AnswerSpan) -> tuple[int, bool, int]:
    return _BEST_FIRST.index(span.kind), span.kind == "name" and " " not in span.text, span.start


def names_in(sentences: Iterable[str]) -> frozenset[str]:
    """Words written with a capital inside a sentence, where the place does not explain it."""
    found: set[str] = set()
    for sentence in sentences:
        for hit in list(_WORD.finditer(sentence))[1:]:
            word = _bare(hit[0])
            if _capital(word) and not _starts_clause(sentence, hit.start()):
                found.add(word)
    return frozenset(found)


def _span(sentence: str, start: int, end: int, kind: Kind) -> AnswerSpan:
    return AnswerSpan(start, end, sentence[start:end], kind)


def _take(taken: list[AnswerSpan], spans: Iterable[AnswerSpan]) -> None:
    """Keep the spans that overlap none taken before: patterns are tried from the surest down."""
    for span in spans:
        if all(span.end <= other.start or other.end <= span.start for other in taken):
            taken.append(span)


def _good(span: AnswerSpan, sentence: str) -> bool:
    """Can be asked for: not too long, not most of the sentence, said once, and no label such as "chapter 3"."""
    text = span.text
    if not text.strip() or len(text) > _LONGEST or len(text) > 0.7 * len(sentence.strip()):
        return False
    if len(re.findall(rf"(?<!\w){re.escape(text)}(?!\w)", sentence, re.IGNORECASE)) > 1:
        return False
    before = sentence[: span.start].rstrip().lower()
    if span.kind in ("number", "year") and re.search(rf"(?:{words.LABELS})\.?$", before):
        return False
    return span.kind != "number" or text.lower() not in words.WEAK_NUMBERS


def _names(sentence: str, language: str, known: frozenset[str]) -> Iterator[AnswerSpan]:
    """Runs of capitalised words, joined over "of", "von" … and over "and": "Edda Moor and Tam Hale" is one answer."""
    runs: list[tuple[int, int]] = []
    for start, end in _capitalised(sentence, known):
        if runs and (_BETWEEN_NAMES.fullmatch(sentence, runs[-1][1], start) or _owned(sentence, runs[-1], start)):
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    runs = [_with_number(sentence, start, end) for start, end in runs]
    for start, end in _joined(sentence, runs):
        single = not re.search(r"[\s-]", sentence[start:end])
        noun = language == "de" and single  # German writes every noun with a capital
        yield _span(sentence, start, end, "noun" if noun else "name")


def _owned(sentence: str, owner: tuple[int, int], start: int) -> bool:
    """ "Pottle's Bakery" is one name."""
    return sentence[owner[1] : start] in ("'s ", "\u2019s ")


def _capitalised(sentence: str, known: frozenset[str]) -> Iterator[tuple[int, int]]:
    hits = list(_WORD.finditer(sentence))
    for place, hit in enumerate(hits):
        word = _bare(hit[0])
        if not _capital(word) or word.lower() in words.NEVER_NAMES:
            continue
        if _starts_clause(sentence, hit.start()):
            after = _bare(hits[place + 1][0]) if place + 1 < len(hits) else ""
            part_of_name = _capital(after) and sentence[hit.end() : hit.end() + 1] == " "
            if word.lower() in words.OPENERS or not (part_of_name or word in known):
                continue
        yield hit.start(), hit.start() + len(word)


def _joined(sentence: str, runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Lists of names become one span, when an "and" closes them; a name after a bare comma stands alone."""
    groups: list[list[tuple[int, int]]] = []
    for run in runs:
        if groups and _JOINED.fullmatch(sentence, groups[-1][-1][1], run[0]):
            groups[-1].append(run)
        else:
            groups.append([run])
    joined: list[tuple[int, int]] = []
    for group in groups:
        if _PLACE_FIRST.fullmatch(sentence, 0, group[0][0]) and "," in sentence[group[0][1] : group[0][1] + 1]:
            joined.append(group.pop(0))  # "In Kessel, Edda Moor and Tam Hale …"
        closed = len(group) > 1 and re.search(r"\w|&", sentence[group[-2][1] : group[-1][0]])
        joined += [(group[0][0], group[-1][1])] if closed else group
    return joined


def _with_number(sentence: str, start: int, end: int) -> tuple[int, int]:
    """A number that belongs to a name ("Gate 4"); a number with something counted after it does not."""
    hit = re.compile(r"\s(?:\d{1,3}(?:\.\d+)*|[IVX]+)(?!\w|[,.]\d|\s?[%\u00b0])").match(sentence, end)
    return (start, hit.end()) if hit else (start, end)


def _bare(word: str) -> str:
    """Without the possessive, and without a full stop unless it is an initial ("J.")."""
    word = re.sub(r"[\u2019']s?$", "", re.sub(r"[\u2019']s\.?$", "", word))
    return word if len(word) == 2 and word[0].isupper() else word.rstrip(".")


def _capital(word: str) -> bool:
    return len(word) > 1 and word[0].isupper()


def _starts_clause(sentence: str, start: int) -> bool:
    """The first word of a sentence, of a quotation or after a colon, bullet or heading mark."""
    end = start
    while end and sentence[end - 1] in " \t\n\u00a0":
        end -= 1
    return not _SAID.search(sentence, 0, end) or sentence[end - 1] in '.!?:;\u201c\u201e\u00ab"(\u2013\u2014-*#|'
