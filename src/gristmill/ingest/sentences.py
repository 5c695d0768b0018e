"""Where the sentences of a text lie. The library knows abbreviations and full stops of some 250 languages; spans
are exact."""

from __future__ import annotations

from gristmill.core.records import Span


def trimmed(text: str, start: int, end: int) -> Span:
    """The span without the white space at its ends."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def sentence_spans(text: str, language: str) -> list[Span]:
    """Spans of sentences, in order, without white space at their ends; together they hold every other character."""
    import sentencex

    spans: list[Span] = []
    for found in sentencex.get_sentence_boundaries(language, text):
        start, end = trimmed(text, found["start_index"], found["end_index"])
        if spans and start == spans[-1][1] < end and _inside_a_word(text, start):
            spans[-1] = (spans[-1][0], end)
        elif start < end:
            spans.append((start, end))
    return spans


def _inside_a_word(text: str, at: int) -> bool:
    """A full stop with a letter right after it ends no sentence where words stand apart: it is in `os.Path`."""
    return text[at - 1] in ".!?" and text[at].isascii()
