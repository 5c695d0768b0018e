"""How alike two instructions are: ROUGE-L, the longest common subsequence of terms (Lin 2004), as F1."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from gristmill.retrieve.terms import terms


def rouge_l(one: list[str], other: list[str]) -> float:
    """2 · LCS / (|one| + |other|)."""
    if not one or not other:
        return 0.0
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for n, their in enumerate(other, 1):
            before, row[n] = row[n], before + 1 if word == their else max(row[n], row[n - 1])
    return 2 * row[-1] / (len(one) + len(other))


@dataclass
class Known:
    """Texts to be unlike to."""

    texts: list[tuple[list[str], Counter[str]]] = field(default_factory=list)

    def add(self, text: str) -> None:
        words = terms(text)
        self.texts.append((words, Counter(words)))

    def likest(self, text: str, *, least: float) -> float:
        """The likeness with the likest of them, if that is `least` or more; else 0. No subsequence is longer than the
        words that two texts share in any order, so most pairs are decided by counting."""
        words = terms(text)
        bag, found = Counter(words), 0.0
        for their, theirs in self.texts:
            total = len(words) + len(their)
            if total and 2 * (bag & theirs).total() / total >= max(least, found):
                found = max(found, rouge_l(words, their))
        return found if found >= least else 0.0
