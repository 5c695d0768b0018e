"""Does an answer offer more than one candidate? The rules are those that `short_answer` states."""

# ruff: noqa: SIM905  (word lists read best as sentences)
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from gristmill.tasks.graders.words import HARD, NONE, Word

_FILLERS = frozenset(
    "possibly maybe perhaps probably likely also even in at on by of from to it is was were either both then".split()
)
_PREPOSITIONS = frozenset("in on at by during after before according since under from near for".split())
_STOP = (
    _FILLERS
    | _PREPOSITIONS
    | frozenset(
        "he she they we you i his her their its this that these those which who has had have be been are as with not "
        "so there here when where while one another other some later".split()
    )
)
_NO_ALTERNATIVE = frozenset({"so", "more", "less", "thereabouts", "later", "earlier", "even"})
_TAKING_BACK = frozenset({"actually", "correction", "wait", "sorry"})


@dataclass(frozen=True)
class Reading:
    """An answer, where references stand in it undenied, and what else the rules look at."""

    words: Sequence[Word]
    spans: Sequence[range]
    references: Sequence[Sequence[Word]]
    question: Sequence[Word]
    denied: frozenset[int]

    @cached_property
    def covered(self) -> frozenset[int]:
        return frozenset(i for span in self.spans for i in span)

    @cached_property
    def insides(self) -> frozenset[int]:
        """Words before which a reference must not be cut."""
        return frozenset(i for span in self.spans for i in span[1:])

    @cached_property
    def asked(self) -> frozenset[str]:
        """Words that merely restate the question. A question that offers a choice excuses nothing."""
        texts = frozenset(w.text for w in self.question)
        return frozenset() if "or" in texts else texts

    def other(self, at: int) -> bool:
        """Whether a word can belong to another candidate."""
        word = self.words[at]
        return at not in self.covered and at not in self.denied and word.text not in self.asked

    def sentence(self, at: int) -> range:
        start, end = at, at + 1
        while start > 0 and self.words[start].gap != HARD:
            start -= 1
        while end < len(self.words) and self.words[end].gap != HARD:
            end += 1
        return range(start, end)


def offers_several(reading: Reading) -> bool:
    rules: list[Callable[[Reading], bool]] = [
        _numbers,
        _either,
        _alternatives,
        _lists,
        _bare_sentences,
        _refrain,
        _taken_back,
    ]
    return any(rule(reading) for rule in rules)


def _numbers(r: Reading) -> bool:
    wanted = [i for i in r.covered if r.words[i].value is not None]
    rivals = [
        i
        for i, w in enumerate(r.words)
        if w.value is not None and r.other(i) and not (w.spelled and w.value == 1) and not _marker(r, i)
    ]
    return any(_same_sort(r, a, b) for a in wanted for b in rivals)


def _marker(r: Reading, at: int) -> bool:
    """The number of a list item: it opens a line and a sentence ends right after it."""
    return r.words[at].gap == HARD and at + 1 < len(r.words) and r.words[at + 1].gap != NONE


def _same_sort(r: Reading, a: int, b: int) -> bool:
    if r.words[a].year != r.words[b].year:
        return False
    unit_a, unit_b = _unit(r, a), _unit(r, b)
    return not unit_a or not unit_b or unit_a == unit_b


def _unit(r: Reading, at: int) -> str:
    if at + 1 < len(r.words) and r.words[at + 1].gap == NONE:
        text = r.words[at + 1].text
        return "" if text in _STOP or text in {"and", "or"} or r.words[at + 1].value is not None else text
    return ""


def _either(r: Reading) -> bool:
    wanted = any(w.text == "either" for reference in r.references for w in reference)
    return not wanted and any(r.words[i].text == "either" for span in r.spans for i in r.sentence(span.start))


def _alternatives(r: Reading) -> bool:
    """`or`, `nor`, `vs` or a slash beside a reference, or before another name or number of its sentence."""
    for span in r.spans:
        for at in r.sentence(span.start):
            if at in r.covered:
                continue
            word = r.words[at]
            if (word.slash and at in (span.stop, span.start)) or (span.start and r.words[span.start].slash):
                return True
            if word.text not in {"or", "nor", "vs", "versus"} or at + 1 >= len(r.words):
                continue
            after = _skip(r, at + 1)
            if r.words[at + 1].text in _NO_ALTERNATIVE or after is None:
                continue
            beside = at == span.stop or _skip(r, at + 1) == span.start
            if (beside and not {after, at - 1} <= r.covered) or (
                after not in r.covered and (r.words[after].capital or r.words[after].value is not None)
            ):
                return True
    return False


def _skip(r: Reading, at: int) -> int | None:
    """The first word from `at` on that is no filler, in the same sentence."""
    while at < len(r.words) and r.words[at].text in _FILLERS | {"and", "or"}:
        at += 1
    return at if at < len(r.words) and (r.words[at].gap != HARD) else None


@dataclass(frozen=True)
class _Piece:
    """Words between two joints of a sentence, and the joint before them: a comma, `and`, or nothing."""

    joint: str
    at: range


def _pieces(r: Reading, sentence: range) -> list[_Piece]:
    pieces: list[_Piece] = []
    start, joint = sentence.start, ""
    for i in sentence:
        cut = r.words[i].text == "and" and i not in r.covered
        if (cut or (r.words[i].gap != NONE and i not in r.insides)) and i > start:
            pieces.append(_Piece(joint, range(start, i)))
            start, joint = i, ","
        if cut:
            start, joint = i + 1, "and"
    return [*pieces, _Piece(joint, range(start, sentence.stop))]


def _trim(r: Reading, at: range) -> range:
    """A piece without the fillers before it."""
    start = at.start
    while start < at.stop and r.words[start].text in _FILLERS:
        start += 1
    return range(start, at.stop)


def _lists(r: Reading) -> bool:
    for span in r.spans:
        pieces = [p for p in _pieces(r, r.sentence(span.start)) if p.at]
        here = next((n for n, p in enumerate(pieces) if span.start in p.at), None)
        if here is None:
            continue
        piece = pieces[here]
        if here + 1 < len(pieces) and piece.at.stop == span.stop and _joins_right(r, pieces[here + 1 :]):
            return True
        if here and _trim(r, piece.at).start == span.start and _joins_left(r, pieces[here - 1], piece, span):
            return True
    return False


def _joins_right(r: Reading, rest: Sequence[_Piece]) -> bool:
    tail = _trim(r, rest[0].at)
    if not tail or not all(r.other(i) for i in tail[:1]):
        return False
    if rest[0].joint == "and":
        return r.words[tail.start].capital or _short(r, tail)
    if _name(r, tail):
        return True
    return _short(r, tail) and any(p.joint == "and" and _short(r, _trim(r, p.at)) for p in rest[1:])


def _joins_left(r: Reading, left: _Piece, piece: _Piece, span: range) -> bool:
    last = left.at.stop - 1
    word = r.words[last]
    if not r.other(last) or word.value is not None:
        return False
    if piece.joint == "and":
        return word.capital or (word.text not in _STOP and piece.at.stop == span.stop)
    alone = _trim(r, piece.at) == span
    return word.capital and alone and r.words[left.at.start].text not in _PREPOSITIONS


def _name(r: Reading, at: range) -> bool:
    return 0 < len(at) <= 4 and all(r.words[i].capital and r.other(i) for i in at)


def _short(r: Reading, at: range) -> bool:
    """A bare noun or two, as items of a list are."""
    return 0 < len(at) <= 2 and all(
        r.words[i].text not in _STOP and r.words[i].value is None and r.other(i) for i in at
    )


def _sentences(r: Reading) -> list[range]:
    starts = [i for i, w in enumerate(r.words) if w.gap == HARD or i == 0]
    return [range(a, b) for a, b in zip(starts, [*starts[1:], len(r.words)], strict=True)]


def _bare_sentences(r: Reading) -> bool:
    """A reference that is a whole sentence or line, beside another one that is nothing but a name or a noun or two."""
    sentences = [s for s in (_trim(r, s) for s in _sentences(r)) if s and not _marker_only(r, s)]
    if not any(s == span or (set(s) <= r.covered) for s in sentences for span in r.spans):
        return False
    return any((_name(r, s) or _short(r, s)) for s in sentences if not set(s) & r.covered)


def _marker_only(r: Reading, sentence: range) -> bool:
    return len(sentence) == 1 and r.words[sentence.start].value is not None


def _refrain(r: Reading) -> bool:
    """`It was Berlin. It was Paris.`: the words that lead to the reference lead elsewhere to something else."""
    for span in r.spans:
        lead = [r.words[i].text for i in range(r.sentence(span.start).start, span.start)]
        if len(lead) < 2:
            continue
        for sentence in _sentences(r):
            after = sentence.start + len(lead)
            same = [r.words[i].text for i in sentence][: len(lead)] == lead
            if same and after < sentence.stop and r.other(after) and after not in r.covered:
                return True
    return False


def _taken_back(r: Reading) -> bool:
    for i, word in enumerate(r.words[1:-1], 1):
        follows = r.words[i + 1]
        opens = word.gap != NONE and follows.gap != HARD
        if opens and (word.text in _TAKING_BACK or (word.text == "no" and follows.gap != NONE)):
            return True
    return False
