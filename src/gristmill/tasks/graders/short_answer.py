"""Is a short answer right? Deterministic, and stricter than "the reference occurs in it".

An answer is right when the words of a reference stand in it, in order and whole ("art" is not in "start"; a sentence
may surround them), after the normalisation that `words` describes, unless one of these holds. Then it is wrong:

* empty: no word at all.
* negated: in every place where the reference stands, its clause says not, never, neither, no, except, unlike, rather
  than, instead of ("not in 1842"). "Not until" and "not only" are no denial; a question that says "not" is exempt.
* several candidates: an answer that names more than one must not win by naming enough.
  - or, nor, a slash, either: beside the reference; or "or" with another name or number later in the sentence
  - lists: the reference joined by comma or "and" to another name; items of a numbered or bulleted list; sentences that
    are nothing but candidates ("Berlin. Paris."); the same sentence again with another ending
  - numbers: where the reference holds a number, another number of the same sort: year beside year, count beside
    count of the same unit. Numbers of the question, numbers denied, and the pronoun "one" do not count
  - taking back: "actually …", "correction …", "wait …", "no, …" after a candidate
* yes/no references: the answer must begin with the word.

References are alternatives: naming two of them is one candidate. A reference that is itself a list ("salt and iron") is
met in any order. "12" meets the reference "12 km" where the answer names no unit; "12 miles" does not. A truncated
answer is graded like any other, save that a number at the very end may be cut and does not count. Only the first 4,000
characters of an answer are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from gristmill.core.records import Task
from gristmill.tasks.graders.rivals import Reading, offers_several
from gristmill.tasks.graders.verdict import Verdict
from gristmill.tasks.graders.words import HARD, NONE, SOFT, Word, read_words

MOST_CHARACTERS = 4_000
_DENY = frozenset({"not", "never", "neither", "nor", "no", "except", "excluding", "unlike", "without"})
_DENY_BACKWARDS = frozenset({"not", "never"})
_NOT_DENYING = frozenset({"only", "until", "till", "just", "merely", "simply"})
_DENY_PAIRS = frozenset({("rather", "than"), ("other", "than"), ("instead", "of")})
_CLAUSE = frozenset({"but", "although", "though", "because", "while", "whereas"})


def grade(task: Task, *, answer: str, finish: str) -> Verdict:
    words = read_words(answer[:MOST_CHARACTERS])
    if finish == "length" and words and words[-1].value is not None and answer[-1:].isalnum():
        words = words[:-1]
    if not words:
        return Verdict(0.0, "empty")
    question = read_words(task.question)
    references = [found for found in map(read_words, task.answers) if found]
    spans = [span for reference in references for span in find(reference, words)]
    if not spans:
        return Verdict(0.0, "not in the answer")
    if all(len(r) == 1 and r[0].text in {"yes", "no"} for r in references):
        begins = [words[0].text] in [[w.text for w in r] for r in references]
        return Verdict(1.0, "right") if begins else Verdict(0.0, "not in the answer")
    denied = frozenset() if _denies(question) else _denied(words)
    standing = [span for span in spans if not denied & set(span) or any(words[i].text in _DENY for i in span)]
    if not standing:
        return Verdict(0.0, "negated")
    if offers_several(Reading(words, standing, references, question, denied)):
        return Verdict(0.0, "several candidates")
    return Verdict(1.0, "right")


def find(reference: Sequence[Word], words: Sequence[Word]) -> list[range]:
    """Every place where the reference stands; for a list its items in any order; for a quantity the bare number."""
    size = len(reference)
    found = [range(i, i + size) for i in range(len(words) - size + 1) if _same(reference, words[i : i + size])]
    if found or size < 2:
        return found
    return _in_any_order(reference, words) or _bare_quantity(reference, words)


def _same(reference: Sequence[Word], words: Sequence[Word]) -> bool:
    """Equal words, and no end of a sentence inside where the reference has none."""
    return all(r.text == w.text for r, w in zip(reference, words, strict=True)) and all(
        w.gap != HARD or r.gap != NONE for r, w in zip(reference[1:], words[1:], strict=True)
    )


def _in_any_order(reference: Sequence[Word], words: Sequence[Word]) -> list[range]:
    items: list[list[Word]] = [[]]
    for word in reference:
        if word.text == "and" or (word.gap == SOFT and items[-1]):
            items.append([])
        if word.text != "and":
            items[-1].append(word)
    items = [item for item in items if item]
    if len(items) < 2 or not any(w.text == "and" for w in reference):
        return []
    places = [find(item, words) for item in items]
    if not all(places):
        return []
    indices = [i for place in places for i in place[0]]
    return [range(min(indices), max(indices) + 1)] if max(indices) - min(indices) < 2 * len(reference) else []


def _bare_quantity(reference: Sequence[Word], words: Sequence[Word]) -> list[range]:
    if len(reference) != 2 or reference[0].value is None or reference[1].value is not None:
        return []
    ends = [i + 1 == len(words) or words[i + 1].gap != NONE for i in range(len(words))]
    return [range(i, i + 1) for i, w in enumerate(words) if w.text == reference[0].text and ends[i]]


def _denies(words: Sequence[Word]) -> bool:
    return any(w.text in _DENY for w in words)


def _denied(words: Sequence[Word]) -> frozenset[int]:
    """Every word that its clause denies: what follows a denial, and for `not` and `never` what precedes it too."""
    denied: set[int] = set()
    starts = [i for i, w in enumerate(words) if i == 0 or w.gap != NONE or words[i - 1].text in _CLAUSE]
    for start, end in zip(starts, [*starts[1:], len(words)], strict=True):
        texts = [w.text for w in words[start:end]] + [""]
        for i, (text, after) in enumerate(pairwise(texts)):
            plain = text in _DENY and after not in _NOT_DENYING
            if plain and text in _DENY_BACKWARDS:
                denied |= set(range(start, end))
            elif plain or (text, after) in _DENY_PAIRS:
                denied |= set(range(start + i + 1, end))
    return frozenset(denied)
