"""Does an output repeat the worked examples of its own prompt? Small models do, with confidence and off the topic."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from gristmill.core.prompt import Prompt
from gristmill.curate.words import Pool, content_words, words

TELLING = 2
"""Content words unknown to the source that a shared sequence must hold: `in what year was the` alone is no leak."""


def sequences(text: str, length: int) -> set[tuple[str, ...]]:
    tokens = words(text)
    return {tuple(tokens[i : i + length]) for i in range(len(tokens) - length + 1)}


@lru_cache(maxsize=32)
def _sequences_in(prompts: tuple[Prompt, ...], length: int) -> frozenset[tuple[str, ...]]:
    """Samples of the same stages share their prompts."""
    return frozenset(gram for prompt in prompts for text in prompt.examples for gram in sequences(text, length))


def leaked(texts: Iterable[str], prompts: tuple[Prompt, ...], source: str, length: int, language: str) -> str:
    """The first sequence of words that came from the prompts' examples and not from the source; empty when there is
    none. A text of fewer words is one sequence.

    Telling are content words and numbers that neither the source nor the prompts' instructions hold: two of them in one
    sequence, or one number. Who is told to answer from memory, and says so in the example's words, leaks nothing.
    """
    shared: list[tuple[str, ...]] = []
    for text in texts:
        size = min(length, len(words(text)))
        shared += sorted(sequences(text, size) & _sequences_in(prompts, size))
    if not shared:
        return ""
    told = "\n".join(prompt.instructions for prompt in prompts)
    known = Pool.of(f"{source}\n{told}", language)
    for gram in shared:
        own = gram in sequences(source, len(gram))
        foreign = [] if own else [word for word in gram if not known.holds_name(word)]
        telling = len(set(content_words(" ".join(foreign), language)))
        if telling >= TELLING or any(word[0].isdigit() for word in foreign):
            return " ".join(gram)
    return ""
