"""How alike two instructions are: ROUGE-L, the longest common subsequence of terms (Lin 2004), as F1; and how much of
one a longer text holds, the same subsequence as recall.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from gristmill.retrieve.terms import terms


def shared(one: list[str], other: list[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for n, their in enumerate(other, 1):
            before, row[n] = row[n], before + 1 if word == their else max(row[n], row[n - 1])
    return row[-1]


def rouge_l(one: list[str], other: list[str]) -> float:
    """2 · LCS / (|one| + |other|)."""
    return 2 * shared(one, other) / (len(one) + len(other)) if one and other else 0.0


@dataclass(frozen=True)
class _Text:
    words: list[str]
    bag: Counter[str]
    seed: bool

    def likeness(self, common: int, length: int) -> float:
        """With a text of so many terms, so many of them in common: of a seed also the share of it that the text holds,
        as one that copies several seeds is much longer than each."""
        if not length or not self.words:
            return 0.0
        return max(2 * common / (length + len(self.words)), common / len(self.words) if self.seed else 0.0)


@dataclass
class Known:
    """Texts to be unlike to. What is like a seed may also hold it."""

    texts: list[_Text] = field(default_factory=list)

    def add(self, text: str, *, seed: bool = False) -> None:
        words = terms(text)
        self.texts.append(_Text(words, Counter(words), seed))

    def likest(self, text: str, *, least: float) -> float:
        """The likeness with the likest of them, if that is `least` or more; else 0. No subsequence is longer than the
        words that two texts share in any order, so most pairs are decided by counting."""
        words = terms(text)
        bag, found = Counter(words), 0.0
        for their in self.texts:
            if their.likeness((bag & their.bag).total(), len(words)) >= max(least, found):
                found = max(found, their.likeness(shared(words, their.words), len(words)))
        return found if found >= least else 0.0
