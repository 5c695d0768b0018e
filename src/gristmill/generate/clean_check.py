"""Whether a correction is one: the same words in the same order, nothing added, nothing dropped.

The letters of both texts are aligned (Ratcliff and Obershelp, as difflib does it), so that spaces, hyphens and case
may come and go. Where letters differ, the difference must be one that a scanner makes: a letter or two in a word
("tlie" and "the"), never a whole word. Names, numbers and words that negate are never touched: nobody can tell a
correction from a change there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher

from gristmill.core.records import Span

_WIDEST = 3  # letters that are misread at once: iii for m
_LETTERS_A_STROKE = 4  # of a word for each place in it that may be misread; one place in any word
_NAMES_NOUNS = frozenset({"de", "lb"})  # every noun has a capital there, so a capital tells no name
_TOKEN = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(r"(?:^|[.!?:;\u2026\u00bb\u201d\"])\W*$")
_MISREAD = frozenset("0158")  # digits that a scanner sees in place of o, l, s and B
_MARKUP = "*#`|<>{}[]"
_NEGATING = """
    no not nor never none without nicht kein keine keinen keinem keiner keines nie ohne pas jamais sans non nunca sin
"""
_NEGATIONS = frozenset(_NEGATING.split())


def check_correction(text: str, *, source: str, language: str, changed: float) -> str:
    """The correction, or ValueError with words for the model. `changed`: the largest share of words."""
    if not text:
        raise ValueError("the answer was empty: write the corrected text")
    if added := Counter(c for c in text if c in _MARKUP) - Counter(c for c in source if c in _MARKUP):
        raise ValueError(f"add no markup: {' '.join(sorted(added))} was not there")
    if len(text.splitlines()) != len(source.splitlines()):
        raise ValueError("keep the lines as they are, one for one")
    _check_numbers(_TOKEN.findall(text), _TOKEN.findall(source))
    if language not in _NAMES_NOUNS:
        _check_names(text, source)
    _check_letters(_Letters(text), _Letters(source), changed)
    return text


def _check_numbers(ours: list[str], theirs: list[str]) -> None:
    """Every number, in order. A word with a digit that scanners see for a letter ("0f") is a word."""
    given, wanted = list(filter(_is_number, ours)), list(filter(_is_number, theirs))
    if given != wanted:
        raise ValueError(f"keep every number as it is: {' '.join(wanted) or 'there is none'}")


def _is_number(token: str) -> bool:
    digits = [c for c in token if c.isdigit()]
    return bool(digits) and not (len(digits) < len(token) and _MISREAD.issuperset(digits))


def _check_names(text: str, source: str) -> None:
    """Words with a capital inside a sentence stand in both texts, whatever spaces divide them."""
    ours, theirs = "".join(_TOKEN.findall(text)), "".join(_TOKEN.findall(source))
    if gone := next((name for name in _names(source) if name not in ours), ""):
        raise ValueError(f"keep every name as it is: {gone} is missing")
    if added := next((name for name in _names(text) if name.casefold() not in theirs.casefold()), ""):
        raise ValueError(f"add no name: {added} was not there")


def _names(text: str) -> Iterator[str]:
    return (
        hit[0] for hit in _TOKEN.finditer(text) if hit[0][0].isupper() and not _SENTENCE_END.search(text[: hit.start()])
    )


class _Letters:
    """A text as its letters and digits alone, and which of them make a word."""

    def __init__(self, text: str) -> None:
        self.words = [word.casefold() for word in _TOKEN.findall(text)]
        self.all = "".join(self.words)
        self.word_at = [n for n, word in enumerate(self.words) for _ in word]
        self.starts = [at for at, n in enumerate(self.word_at) if at == 0 or self.word_at[at - 1] != n]

    def whole(self, span: Span) -> list[str]:
        """The words that lie wholly inside."""
        touched = sorted(set(self.word_at[slice(*span)]))
        ends = {n: self.starts[n] + len(self.words[n]) for n in touched}
        return [self.words[n] for n in touched if self.starts[n] >= span[0] and ends[n] <= span[1]]

    def whole_anywhere(self, span: Span) -> list[str]:
        """The same where the letters of a span may as well be taken a little before or after it: "the the" has lost a
        word, whichever letters an alignment says are gone."""
        (start, end), most = span, self.whole(span)
        while not most and start > 0 and self.all[start - 1] == self.all[end - 1]:
            start, end = start - 1, end - 1
            most = self.whole((start, end))
        start, end = span
        while not most and end < len(self.all) and self.all[start] == self.all[end]:
            start, end = start + 1, end + 1
            most = self.whole((start, end))
        return most

    def touched(self, span: Span) -> set[int]:
        return set(self.word_at[slice(*span)])


def _check_letters(ours: _Letters, theirs: _Letters, changed: float) -> None:
    strokes: Counter[int] = Counter()  # places that differ, by our word
    for operation, a, b, c, d in SequenceMatcher(None, theirs.all, ours.all, autojunk=False).get_opcodes():
        if operation == "equal":
            continue
        was, said = (a, b), (c, d)
        if operation == "replace":
            _check_words(ours.whole(said), theirs.whole(was))
        else:
            _check_words(ours.whole_anywhere(said) if c < d else [], theirs.whole_anywhere(was) if a < b else [])
        touched = {ours.words[n] for n in ours.touched(said)} | {theirs.words[n] for n in theirs.touched(was)}
        if max(b - a, d - c) > _WIDEST or touched & _NEGATIONS:
            raise ValueError(f"do not reword: {theirs.all[max(0, a - 20) : b + 20]!r}")
        strokes.update(ours.touched(said) or ours.touched((max(0, c - 1), c)))
    for n, count in strokes.items():
        if count > max(1, len(ours.words[n]) // _LETTERS_A_STROKE):
            raise ValueError(f"do not reword: {ours.words[n]!r} is another word")
    if len(strokes) > max(1.0, changed * len(theirs.words)):
        raise ValueError("too much was changed: correct only letters that were misread")


def _check_words(came: list[str], gone: list[str]) -> None:
    """Whole words neither come nor go; one letter may stand for another by itself ("l" for "I")."""
    if len(came) > len(gone):
        raise ValueError(f"add nothing: {' '.join(came)[:80]!r} was not there")
    if len(gone) > len(came):
        raise ValueError(f"leave nothing out: {' '.join(gone)[:80]!r} is missing")
    if any(len(word) > 1 for word in (*came, *gone)):
        raise ValueError(f"do not reword: {' '.join(gone)[:80]!r} became {' '.join(came)[:80]!r}")
