"""What a model's line must be before it becomes data: one line, self-contained, and not about "the text".

The checks raise ValueError with words for the model, which it sees when it is asked again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from gristmill.core.records import Span
from gristmill.generate.lexicon import BARE_PRONOUNS, OPENERS, PRONOUNS
from gristmill.generate.source import Sentence, Source
from gristmill.generate.spans import names_in

_LABEL = re.compile(
    r"^(?:[-*\u2022]\s+|\d{1,2}[.)]\s+)?"
    r"(?:(?:\*\*)?(?:question|statement|answer|sentence|q|frage|pregunta)\s*\d*\s*:(?:\*\*)?\s*)?",
    re.IGNORECASE,
)
_MENTIONS = re.compile(
    r"\b(?:in|from|by|to|on|per|under) (?:the|this|that) (?:\w+ )?"
    r"(?:text|passage|sentence|paragraph|excerpt|context|statement)\b"
    r"|\bthe (?:given|provided|above|preceding) (?:text|passage|sentence|paragraph|information|context|statement)\b"
    r"|\b(?:the|this) (?:text|passage|excerpt) (?:says|states|mentions|describes)\b|\bmentioned (?:above|here)\b"
    r"|\b(?:im|laut|aus dem|dem|diesem) (?:obigen )?(?:Text|Satz|Abschnitt)\b|\b(?:le|ce) (?:texte|passage)\b"
    r"|\b(?:el|este) (?:texto|pasaje)\b",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^```\w*\n|\n```$")
_TURN = re.compile(
    r"<\|[^|>\s]{1,40}\|>|^[ \t]*(?:@?(?:system|user|assistant)\b:?$|(?:topic|passage|write in|task|strategy)[ \t]*:)",
    re.IGNORECASE | re.MULTILINE,
)
_COPY = 0.7  # of runs of five words, that a text may share with its source
_SHORTEST = 40  # characters of a text that says something
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
"""Signs of scripts that put no spaces between words: each counts as one."""
_LETTER = rf"[^\W_{_UNSPACED}]"
_RUN = re.compile(rf"[^\W{_UNSPACED}]+")
_WORD = re.compile(rf"[{_UNSPACED}]|{_LETTER}(?:(?![{_UNSPACED}])[\w'\u2019./-])*{_LETTER}|{_LETTER}")


def one_line(text: str) -> str:
    """The first line with anything in it, without labels, bullets, fences and the quotation marks around it."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("```")]
    if not lines:
        raise ValueError("the answer was empty: write one line")
    line = _LABEL.sub("", lines[0]).strip()
    if len(line) > 1 and line[0] + line[-1] in ('""', "\u201c\u201d", "\u00ab\u00bb", "\u201e\u201c", "**"):
        line = line[1:-1].strip()
    return line


def unfenced(text: str) -> str:
    """A text without the fence that models put around what they write."""
    return _FENCE.sub("", text.strip()).strip()


def check_statement(text: str) -> str:
    """A sentence that stands alone."""
    if _length(text) < 8:
        raise ValueError("that is too short: write one whole sentence")
    if _MENTIONS.search(text):
        raise ValueError("do not speak of a text or a sentence: say what is the case")
    if opens_with_pronoun(text):
        raise ValueError("it opens with a pronoun: name the person, place or thing instead")
    return text


def speaks_of_text(text: str) -> bool:
    """It mentions a text that its reader does not have."""
    return _MENTIONS.search(text) is not None


def opens_with_pronoun(text: str) -> bool:
    """It, her, this …: nobody knows what is meant without the sentence before."""
    words = _words(text)
    return bool(words) and words[0] in PRONOUNS


def check_question(question: str, *, answer: str, sentence: Sentence, source: Source, mark: bool = False) -> str:
    """One question that does not hold its answer and can be understood alone. Where it names nothing of its world
    ("What is the fine for a false weight?"), the topic is put before it; a bare pronoun is refused. `mark`: it must end
    with a question mark, as small models often write a statement instead."""
    if _length(question) < 10 or len(question) > 280:
        raise ValueError("write one question of one line")
    if mark and not question.endswith(("?", "\uff1f", "\u061f")):
        raise ValueError("that is no question: end it with a question mark")
    if _MENTIONS.search(question):
        raise ValueError("do not speak of a text or a sentence: ask about the thing itself")
    if len(re.findall("_{2,}", question)) > 1:
        raise ValueError("leave one gap, not several")
    words = set(_words(question))
    if not words & anchors_of(sentence, source, answer):
        if words & BARE_PRONOUNS:
            raise ValueError("say what the question is about, by name")
        question = f"{source.topic}: {question}"
    if holds(question, answer):
        raise ValueError(f"the question gives the answer {answer!r} away: ask so that the answer is missing")
    return question


def holds(text: str, answer: str) -> bool:
    """Whether the answer stands in the text as words of its own."""
    bare = answer.strip(" .,;:!?")
    return bool(bare) and re.search(as_words(bare), text, re.IGNORECASE) is not None


def as_words(words: str) -> str:
    """The pattern of some words that are no part of a longer one; where no spaces are written, of any."""
    return rf"(?<![^\W{_UNSPACED}]){re.escape(words)}(?![^\W{_UNSPACED}])"


def places(text: str, words: str) -> list[Span]:
    """Where some words stand in a text, letter for letter and as words of their own."""
    return [hit.span() for hit in re.finditer(as_words(words), text)]


def places_of(text: str, phrases: Iterable[str]) -> list[Span]:
    """`places` of many phrases in one reading: a phrase can stand only where its first letters are the text's own."""
    found: list[Span] = []
    by_run: dict[str, list[str]] = {}
    for phrase in dict.fromkeys(phrases):
        if head := _RUN.match(phrase):
            by_run.setdefault(head[0], []).append(phrase)
        else:
            found += places(text, phrase)
    ends: dict[str, int] = {}
    for run in _RUN.finditer(text):
        for phrase in by_run.get(run[0], ()):
            start, end = run.start(), run.start() + len(phrase)
            if start >= ends.get(phrase, 0) and text.startswith(phrase, start) and not _RUN.match(text, end):
                ends[phrase] = end
                found.append((start, end))
    return found


def word_count(text: str) -> int:
    return len(_words(text))


def anchors_of(sentence: Sentence, source: Source, answer: str) -> set[str]:
    """Words that tie a question to its world: names in and before the sentence, and the words of title and headings;
    one of them must stand in a question that someone else should understand. The answer's own words do not count."""
    names = {word.casefold() for word in names_in([f"- {sentence.before}", f"- {sentence.text}"])}
    known = {name.casefold() for name in source.names} & set(_words(f"{sentence.before} {sentence.text}"))
    place = {word for word in _words(source.place) if len(word) > 3 and word not in OPENERS}
    return (names | known | place) - set(_words(answer)) - OPENERS


def _length(text: str) -> int:
    """In letters; a sign that is a word by itself says as much as three."""
    return len(text) + 2 * len(re.findall(f"[{_UNSPACED}]", text))


def _words(text: str) -> list[str]:
    return [re.sub(r"['\u2019]s?$", "", word).casefold() for word in _WORD.findall(text)]


def takes_all(statement: str, said: list[str]) -> bool:
    """Whether something of every sentence stands in a statement that none of them holds alone. A bare number is nothing
    of a sentence: it may have been put to what another one speaks of."""
    words = set(_words(statement)) - OPENERS
    held = [words & set(_words(sentence)) for sentence in said]
    beside = [set().union(*(other for other in held if other is not each)) for each in held]
    own = [each - others for each, others in zip(held, beside, strict=True)]
    return words not in held and all(any(not word[0].isdigit() for word in each) for each in own)


def is_one(statement: str) -> bool:
    """One sentence. A short word with a full stop ("Dr.", "No.") ends none."""
    return not re.search(r"[^\W_]{3,}[.!?\u3002]\s+\S", statement)


def check_rewriting(text: str, *, source: str, longest: float = 2) -> str:
    """Other words for the same facts: not empty, not a copy, not `longest` times as long, and with the source's facts
    in it."""
    words, known = _words(text), _words(source)
    if len(words) < 4 or len(words) < 0.3 * len(known):
        raise ValueError("that is too short: keep every fact")
    if len(words) > longest * len(known) + 20:
        raise ValueError("that is too long: add nothing that was not said")
    if _MENTIONS.search(text):
        raise ValueError("do not speak of a text or a sentence: say what is the case")
    if copied(text, [source], run=5) > _COPY:
        raise ValueError("that is nearly a copy: change the order and the wording")
    if words == known:
        raise ValueError("that is a copy: change the order and the wording")
    return text


def check_ends(text: str) -> str:
    """It stops where it is done: no loop, and not the next turn of the talk with the model."""
    if _TURN.search(text):
        raise ValueError("write the text alone, nothing before or after it")
    said = [" ".join(_words(part)) for part in re.split(r"(?<=[.!?])\s+|\n", text)]
    if any(said.count(each) > 2 for each in said if each.count(" ") > 2):
        raise ValueError("you say the same again and again: say each thing once")
    words = _words(text)
    if any(count > 2 for count in Counter(_runs(words, 8)).values()):
        raise ValueError("the same words stand there three times: say each thing once")
    return text


def check_prose(text: str, *, source: str) -> str:
    """A text of several sentences on a source, without fences: not empty, not copied from it, no loop, no word on the
    task, and not the next turn of the talk with the model."""
    text = unfenced(text)
    if _length(text) < _SHORTEST:
        raise ValueError("that is too short: write whole sentences")
    if _MENTIONS.search(text):
        raise ValueError("do not speak of a text or a sentence: say what is the case")
    check_ends(text)
    if copied(text, [source], run=5) > _COPY:
        raise ValueError("that is nearly a copy: change the order and the wording")
    return text


def copied(text: str, said: Iterable[str], *, run: int) -> float:
    """Share of a text's runs of so many words that stand in one of the others, too; 0 of a text without any."""
    own, known = set(_runs(_words(text), run)), {each for other in said for each in _runs(_words(other), run)}
    return len(own & known) / len(own) if own else 0.0


def _runs(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[n : n + length]) for n in range(len(words) - length + 1)]
