"""What a question and an answer must be, each way of asking by its own measure. A ValueError's words are for the model,
which sees them when it is asked again."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gristmill.core.thoughts import ANSWER
from gristmill.generate.recall.claims import Claim, says
from gristmill.generate.recall.group import Group, in_full
from gristmill.generate.recall.hints import names_of
from gristmill.generate.source import Sentence
from gristmill.generate.spans import names_in
from gristmill.generate.wording import check_question, holds, speaks_of_text

_LONGEST_QUESTION, _LONGEST_ANSWER = 280, 1200  # characters


def check_first(text: str, *, group: Group, claim: Claim | None) -> str:
    """The question that opens a sample. It is given back, with its topic before it where it names nothing."""
    if group.way == "vague":
        return _check_vague(text, group)
    question = check_question(text, answer="", sentence=group.begin, source=group.anchor, mark=True)
    if claim and not says(question, claim.wrong):
        raise ValueError(f"the question does not hold the wrong number {claim.wrong}")
    if claim and says(question, claim.right):
        raise ValueError(f"the question holds the right number {claim.right}: it must not know it")
    return question


def check_next(text: str) -> str:
    """A question that goes on from what was said, or the offer to tell more."""
    if not 3 <= len(text) <= _LONGEST_QUESTION or not text.endswith(("?", "\uff1f", "\u061f", ".")):
        raise ValueError("write one short question of one line, with a question mark")
    if speaks_of_text(text):
        raise ValueError("do not speak of a text: ask about the thing itself")
    return text


def _check_vague(text: str, group: Group) -> str:
    """It may name nothing: who asks has forgotten."""
    named = [name for name in names_of(group.begin, group.anchor.chunk.language) if holds(text, name)]
    if named:
        raise ValueError(f"the question is not vague: leave out {', '.join(named)}")
    if re.search(r"\d", text):
        raise ValueError("the question is not vague: leave out every number")
    if len(text) < 20:
        raise ValueError("the question says too little: describe what is meant")
    return check_next(text)


def check_answer(
    text: str, *, group: Group, claim: Claim | None, question: str, facts: Iterable[Sentence], names_tell: bool
) -> str:
    """An answer in whole sentences; every number in it stands in the facts or in the question, and every name where
    capitals tell names. A wrong claim is put right, a vague thing is named."""
    known = [*facts]
    given = " ".join([question, *(source.place for source in group.sources), *(in_full(each) for each in known)])
    if not 2 <= len(text) <= _LONGEST_ANSWER:
        raise ValueError("write one to three whole sentences")
    if speaks_of_text(text) or ANSWER.casefold() in text.casefold():
        raise ValueError("write the answer alone, and do not speak of a text")
    new = [number for number in re.findall(r"\d+", text) if number not in re.findall(r"\d+", given)]
    new += [name for name in sorted(names_in([text])) if names_tell and not holds(given, name)]
    if new:
        raise ValueError(f"nothing says {new[0]}: use the facts alone")
    if claim and not says(text, claim.right):
        raise ValueError(f"the answer does not say what is right: {claim.right}")
    names = [name for each in known for name in names_of(each, group.anchor.chunk.language)]
    if group.way == "vague" and names and not any(holds(text, name) for name in names):
        raise ValueError("say by name what is meant")
    return text
