"""Whether a correction is one: the same words in the same order, nothing added, nothing dropped.

The letters of both texts are aligned (Ratcliff and Obershelp, as difflib does it), so that spaces, hyphens and case
may come and go. Where letters differ, the difference must be one that a scanner makes: a letter or two in a word
("tlie" and "the"), never a whole word. Names, numbers with their signs, what negates and what asks are never touched:
nobody can tell a correction from a change there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher

from gristmill.core.records import Span

_WIDEST = 3  # letters that are misread at once: iii for m
_LETTERS_A_STROKE = 4  # of a word for each place in it that may be misread; one place in any word, half of its letters
_NAMES_NOUNS = frozenset({"de", "lb"})  # every noun has a capital there, so a capital tells no name
_TOKEN = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"(?:^|[.!?:;\u2026\u00bb\u201d\"])\W*$")
_MISREAD = frozenset("0158")  # digits that a scanner sees in place of o, l, s and B
_MARKUP = "*#`|<>{}[]"
_FIGURE = re.compile(
    r"[^\W_]+|(?:(?<=[\s(\[])|^)[-+\u00b1](?=\d)|(?<=\d)[.,:/'-](?=\d)|[<>=\u2264\u2265](?=\s?\d)"
    r"|[%\u2030\u00b0$\u20ac\u00a3\u00a5\u00a7\u00d7\u00f7]"
)  # a word, or a sign that makes another number of its neighbour
_DASHES = str.maketrans("\u2013\u2014\u2212", "---")
_NEGATING = """
    no not nor never none neither nothing nobody nowhere without cannot
    nicht nichts kein keine keinen keinem keiner keines nie niemals niemand ohne
    pas jamais sans rien aucun aucune non nunca nada nadie sin ni
"""
_NEGATIONS = frozenset(_NEGATING.split())
_NEGATING_BEGINNINGS = frozenset(["un", "in", "im", "il", "ir", "non", "dis"])


def check_correction(text: str, *, source: str, language: str, changed: float) -> str:
    """The correction, or ValueError with words for the model. `changed`: the largest share of words."""
    if not text:
        raise ValueError("the answer was empty: write the corrected text")
    if added := Counter(c for c in text if c in _MARKUP) - Counter(c for c in source if c in _MARKUP):
        raise ValueError(f"add no markup: {' '.join(sorted(added))} was not there")
    if len(text.splitlines()) != len(source.splitlines()):
        raise ValueError("keep the lines as they are, one for one")
    if (wanted := _figures(source)) != _figures(text):
        raise ValueError(f"keep every number as it is: {' '.join(wanted) or 'there is none'}")
    if _signs(source) != _signs(text) or _quoted(text) < _quoted(source):
        raise ValueError("keep every question mark, exclamation mark, bracket and quotation mark")
    if named := language not in _NAMES_NOUNS:
        _check_names(text, source)
    _check_letters(_Letters(text, named=named), _Letters(source, named=named), changed)
    if _negated(source) != _negated(text):
        raise ValueError("do not reword: keep what says no as it is, and the commas beside it")
    return text


def _figures(text: str) -> list[str]:
    """Every number, and every sign that belongs to one, in order; one dash is as good as another."""
    return [part for part in _FIGURE.findall(text.translate(_DASHES)) if _is_figure(part)]


def _signs(text: str) -> list[str]:
    return [c for c in text if c in "?!()\u00bf\u00a1"]


def _quoted(text: str) -> int:
    """How many quotation marks there are; a scanner takes one for two apostrophes or two commas."""
    return len(re.findall(r"[\"\u201c-\u201f\u00ab\u00bb]|''|,,", text))


def _negated(text: str) -> list[str]:
    """Words that negate, each with the comma before it and the one after it, be they broken across lines or not."""
    whole = re.sub(r"(?<=[^\W\d_])-\s+(?=[^\W\d_])", "", text.casefold())
    hits = (hit for hit in re.finditer(r"(,?)\s*([^\W\d_]+)\s*(?=(,?))", whole) if hit[2] in _NEGATIONS)
    return ["".join(hit.groups()) for hit in hits]


def _is_figure(part: str) -> bool:
    """A word with a digit that scanners see for a letter ("0f") is a word."""
    digits = [c for c in part if c.isdigit()]
    return not part.isalpha() and not (0 < len(digits) < len(part) and _MISREAD.issuperset(digits))


def _check_names(text: str, source: str) -> None:
    """Words with a capital inside a sentence stand in both texts, whatever spaces divide them."""
    ours, theirs = "".join(_TOKEN.findall(text)), "".join(_TOKEN.findall(source))
    if gone := next((name for name in _names(source) if name not in ours), ""):
        raise ValueError(f"keep every name as it is: {gone} is missing")
    if added := next((name for name in _names(text) if name.casefold() not in theirs.casefold()), ""):
        raise ValueError(f"add no name: {added} was not there")


def _names(text: str) -> Iterator[str]:
    return (hit[0] for hit in _TOKEN.finditer(text) if _is_name(hit))


def _is_name(hit: re.Match[str]) -> bool:
    return hit[0][0].isupper() and not _SENTENCE_END.search(hit.string[: hit.start()])


class _Letters:
    """A text as its letters and digits alone, and which of them make a word."""

    def __init__(self, text: str, *, named: bool) -> None:
        hits = list(_TOKEN.finditer(text))
        self.words = [hit[0].casefold() for hit in hits]
        self.names = {n for n, hit in enumerate(hits) if named and _is_name(hit)}
        self.all = "".join(self.words)
        self.word_at = [n for n, word in enumerate(self.words) for _ in word]
        self.places: Counter[int] = Counter()  # that differ from the other text, by word
        self.letters: Counter[int] = Counter()
        self.starts = [at for at, n in enumerate(self.word_at) if at == 0 or self.word_at[at - 1] != n]

    def whole(self, span: Span) -> list[str]:
        """The words that lie wholly inside."""
        touched = sorted(set(self.word_at[slice(*span)]))
        ends = {n: self.starts[n] + len(self.words[n]) for n in touched}
        return [self.words[n] for n in touched if self.starts[n] >= span[0] and ends[n] <= span[1]]

    def shifted(self, span: Span) -> Iterator[Span]:
        """Where the letters of a span may as well be taken, a little before or after it: "the the" has lost a word,
        whichever letters an alignment says are gone."""
        yield span
        start, end = span
        while start > 0 and self.all[start - 1] == self.all[end - 1]:
            start, end = start - 1, end - 1
            yield start, end
        start, end = span
        while end < len(self.all) and self.all[start] == self.all[end]:
            start, end = start + 1, end + 1
            yield start, end

    def check_span(self, span: Span) -> None:
        """ValueError where letters that one text has and the other has not are of a name, or negate a word."""
        for start, end in self.shifted(span):
            if name := next((self.words[n] for n in self.touched((start, end)) & self.names), ""):
                raise ValueError(f"keep every name as it is: {name} is another one")
            if start in self.starts and self.all[start:end] in _NEGATING_BEGINNINGS:
                raise ValueError(f"do not reword: {self.words[self.word_at[start]]!r} means the opposite")

    def touched(self, span: Span) -> set[int]:
        return set(self.word_at[slice(*span)])

    def goes_on(self, end: int) -> bool:
        """Whether the word before a place has more letters behind it."""
        return 0 < end < len(self.all) and self.word_at[end - 1] == self.word_at[end]

    def differ(self, span: Span, *, after: bool) -> None:
        """Note letters that are not the other text's; of an empty span that some of its letters are missing there, in
        the word after it or in the one before."""
        start, end = span if span[0] < span[1] else (span[0], span[0] + 1) if after else (max(0, span[0] - 1), span[0])
        self.places.update(self.touched((start, end)))
        self.letters.update(self.word_at[slice(*span)])

    def check_places(self) -> None:
        """ValueError where more of a word differs than a scanner misreads."""
        for n, count in self.places.items():
            length = len(self.words[n])
            if count > max(1, length // _LETTERS_A_STROKE) or self.letters[n] > (length + 1) // 2:
                raise ValueError(f"do not reword: {self.words[n]!r} is another word")


def _check_letters(ours: _Letters, theirs: _Letters, changed: float) -> None:
    for operation, a, b, c, d in SequenceMatcher(None, theirs.all, ours.all, autojunk=False).get_opcodes():
        if operation == "equal":
            continue
        was, said = (a, b), (c, d)
        if operation == "replace":
            _check_words(ours.whole(said), theirs.whole(was))
        else:
            side, span = (ours, said) if c < d else (theirs, was)
            moved = next(filter(None, map(side.whole, side.shifted(span))), [])
            _check_words(*((moved, []) if side is ours else ([], moved)))
            side.check_span(span)
        touched = {ours.words[n] for n in ours.touched(said)} | {theirs.words[n] for n in theirs.touched(was)}
        if max(b - a, d - c) > _WIDEST or touched & _NEGATIONS:
            raise ValueError(f"do not reword: {theirs.all[max(0, a - 20) : b + 20]!r}")
        ours.differ(said, after=theirs.goes_on(b))
        theirs.differ(was, after=ours.goes_on(d))
    ours.check_places()
    theirs.check_places()
    if len(ours.places) > max(1.0, changed * len(theirs.words)):
        raise ValueError("too much was changed: correct only letters that were misread")


def _check_words(came: list[str], gone: list[str]) -> None:
    """Whole words neither come nor go; one letter may stand for another by itself ("l" for "I")."""
    if len(came) > len(gone):
        raise ValueError(f"add nothing: {' '.join(came)[:80]!r} was not there")
    if len(gone) > len(came):
        raise ValueError(f"leave nothing out: {' '.join(gone)[:80]!r} is missing")
    if any(len(word) > 1 for word in (*came, *gone)):
        raise ValueError(f"do not reword: {' '.join(gone)[:80]!r} became {' '.join(came)[:80]!r}")
