"""Does an output repeat the worked examples of its own prompt? Small models do, with confidence and off the topic."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from gristmill.curate.words import Pool, content_words, words

TELLING = 2
"""Content words unknown to the source that a shared sequence must hold: `in what year was the` alone is no leak."""


def sequences(text: str, length: int) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)}


@lru_cache(maxsize=32)
def _sequences_in(examples: tuple[str, ...], length: int) -> frozenset[tuple[str, ...]]:
    """Samples of the same stages share their examples."""
    return frozenset(gram for example in examples for gram in sequences(example, length))


def leaked(texts: Iterable[str], examples: tuple[str, ...], source: str, length: int, language: str) -> str:
    """The first sequence of words that came from the examples and not from the source; empty when there is none.

    Telling are content words and numbers that the source does not hold: two of them in one sequence, or one number.
    """
    theirs = _sequences_in(examples, length)
    shared = [gram for text in texts for gram in sorted(sequences(text, length) & theirs)]
    if not shared:
        return ""
    own, known = sequences(source, length), Pool.of(source, language)
    for gram in shared:
        foreign = [] if gram in own else [word for word in gram if not known.holds_name(word)]
        telling = len(set(content_words(" ".join(foreign), language)))
        if telling >= TELLING or any(word[0].isdigit() for word in foreign):
            return " ".join(gram)
    return ""
