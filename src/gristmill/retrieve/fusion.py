"""Reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009): several rankings become one, by rank alone.

score(d) = Σ_rankings 1 / (60 + rank), ranks from 1. Scores of different scales need no common measure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

CONSTANT = 60


def fuse(rankings: Iterable[Sequence[int]]) -> dict[int, float]:
    """The fused score of everything that stands in a ranking. One that does not stand in a ranking gains nothing
    there."""
    scores: defaultdict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            scores[item] += 1 / (CONSTANT + rank)
    return dict(scores)
