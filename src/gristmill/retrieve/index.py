"""A searchable set of texts: BM25 and embeddings, fused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gristmill.retrieve.bm25 import Bm25
from gristmill.retrieve.embeddings import Vectors, embed
from gristmill.retrieve.fusion import fuse

_DEPTH = 100  # of each ranking that is fused
_DIGITS = 5  # of a cosine that count: the rest depends on how the product was blocked


@dataclass(frozen=True)
class Hit:
    """A text that was found: its number in the set, the fused score, and both scores by themselves."""

    number: int
    score: float
    bm25: float
    cosine: float


class Index:
    """The texts, indexed once. Ties go by the texts themselves, never by their place in the set."""

    def __init__(self, texts: Sequence[str], vectors: Vectors | None = None) -> None:
        """`vectors`: a role's, one row for each text; the local ones otherwise."""
        self._vectors = embed(texts) if vectors is None else vectors
        self._bm25 = Bm25(texts)
        by_text = sorted(range(len(texts)), key=texts.__getitem__)
        self._order = np.argsort(np.array(by_text, np.int64))  # where each stands among the sorted texts

    def search(self, query: str, count: int, *, vector: Vectors | None = None) -> list[Hit]:
        """The best first. `vector` is the query's when the texts' are a role's."""
        words = self._bm25.scores(query)
        query_vector = embed([query])[0] if vector is None else vector
        near = (self._vectors @ query_vector).astype(np.float64).round(_DIGITS)
        fused = fuse([self._ranked(words), self._ranked(near)])
        best = sorted(fused, key=lambda number: (-fused[number], self._order[number]))[:count]
        return [Hit(number, fused[number], float(words[number]), float(near[number])) for number in best]

    def _ranked(self, scores: NDArray[np.float64]) -> list[int]:
        """Those with a score above 0, the best first."""
        ranked = np.lexsort((self._order, -scores))[:_DEPTH]
        return [int(number) for number in ranked if scores[number] > 0]
