"""How near a variant is to its original, measured here, so that a judge is asked only where that cannot tell."""

from __future__ import annotations

import re

from gristmill.core.records import Span

_WORD = re.compile(r"\w+")


def likeness(one: str, other: str) -> float:
    """Cosine of the local word vectors. Blind to order and negation: it tells another topic, not another opinion."""
    from gristmill.retrieve.embeddings import embed

    vectors = embed([one, other])
    return float(vectors[0] @ vectors[1])


def plain(text: str) -> list[str]:
    """A text's words, letter case and punctuation aside: by these two texts are the same."""
    return [word.casefold() for word in _WORD.findall(text)]


def around(text: str, span: Span | None) -> str:
    """The text without its aspect."""
    return text if span is None else text[: span[0]] + " " + text[span[1] :]


def changed(one: str, other: str) -> float:
    """Edit distance of two texts in words (Levenshtein), as a share of the longer one's words."""
    left, right = plain(one), plain(other)
    row = list(range(len(right) + 1))
    for at, word in enumerate(left, 1):
        before, row[0] = row[0], at
        for place, theirs in enumerate(right, 1):
            before, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, before + (word != theirs))
    return row[-1] / max(len(left), len(right), 1)
