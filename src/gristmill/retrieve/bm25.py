"""Okapi BM25 (Robertson and Zaragoza, 2009): how much the rarer words of a query weigh in each text.

score(q, d) = Σ_t idf(t) · tf · (k1 + 1) / (tf + k1 · (1 - b + b · |d| / avg|d|))
idf(t) = ln(1 + (N - n + 0.5) / (n + 0.5)), which is never negative.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gristmill.retrieve.terms import terms

K1, B = 1.2, 0.75


class Bm25:
    """The texts, indexed once; any number of queries."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(terms(text)) for text in texts]
        lengths = np.array([count.total() for count in counts], np.float64)
        self.size = len(texts)
        self._norms = K1 * (1 - B + B * lengths / (lengths.mean() if lengths.any() else 1.0))
        found: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for number, count in enumerate(counts):
            for term, times in count.items():
                found[term].append((number, times))
        self._postings = {term: np.array(places, np.int64).T for term, places in found.items()}

    def idf(self, term: str) -> float:
        """What a term is worth: little where every text has it."""
        held = self._postings[term].shape[1] if term in self._postings else 0
        return float(np.log1p((self.size - held + 0.5) / (held + 0.5)))

    def scores(self, query: str) -> NDArray[np.float64]:
        """One score for each text; a term counts once, however often the query repeats it."""
        scores = np.zeros(self.size)
        for term in sorted(set(terms(query)) & self._postings.keys()):
            numbers, times = self._postings[term]
            scores[numbers] += self.idf(term) * times * (K1 + 1) / (times + self._norms[numbers])
        return scores
