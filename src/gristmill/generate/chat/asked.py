"""A question with a short answer, as the kinds of this family take it, and what a reply to it must be.

The reply is the model's; that it says the answer is checked by code, so that what is taught stays what was quoted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gristmill.core.errors import Reject
from gristmill.core.prompt import Prompt
from gristmill.core.records import Message, Origin, Quote, Sample
from gristmill.core.thoughts import parted
from gristmill.generate.source import Sentence, Source
from gristmill.generate.wording import check_statement, holds, one_line, word_count
from gristmill.generate.writer import Writer, Written

LONGEST_REPLY = 600  # characters
_LABEL = re.compile(
    r"^\W*(?:user|assistant|reply|request|question|answer|nutzer|antwort|frage)\b[^:\n]{0,20}:", re.IGNORECASE
)
_SPEAKER = re.compile(r"(?:^|\n)\s*(?:user|assistant|nutzer|assistent)\s*:", re.IGNORECASE)
_TELLING = 4  # letters of a word that a longer answer may not lose


@dataclass(frozen=True)
class Asked:
    question: str
    answer: str
    sentence: Sentence  # where the answer stands
    sample: Sample

    @property
    def values(self) -> dict[str, Any]:
        """What every prompt of this family is told."""
        return {"question": self.question, "answer": self.answer}


def is_question(sample: Sample) -> bool:
    """One question with one answer, resting on words of a document."""
    return (
        sample.form == "chat"
        and [message.role for message in sample.messages] == ["user", "assistant"]
        and bool(sample.quotes)
    )


def asked_of(sample: Sample, source: Source) -> Asked:
    if not is_question(sample):
        raise Reject("no single question with a quoted answer")
    return Asked(sample.question, parted(sample.answer, sample).answer, _sentence(sample.quotes, source), sample)


def _sentence(quotes: tuple[Quote, ...], source: Source) -> Sentence:
    """The source's own sentence; of several quotes, their words in order."""
    whole = next((each for each in source.sentences if len(quotes) == 1 and each.quote == quotes[0]), None)
    text = " ".join(" ".join(quote.text.split()) for quote in quotes)
    return whole or Sentence(0, text, "", quotes[0])


def carried(sample: Sample) -> dict[str, Any]:
    """The marks that what is made from a sample has, too: a question that is held out stays held out."""
    return {"split": sample.marks["split"]} if "split" in sample.marks else {}


def check_reply(text: str, answer: str) -> str:
    """A reply in whole sentences that says the answer. A longer answer may be said in other words, but every number
    and most words of it must be there."""
    reply = check_said(text)
    if not says(reply, answer):
        raise ValueError(f"the reply must say the answer: {answer!r}")
    if word_count(reply) < word_count(answer) + 2:
        raise ValueError("write a whole sentence, not the bare answer")
    return check_statement(reply)


def check_said(text: str) -> str:
    """What one side of a talk says, and nothing else."""
    said = text.strip()
    if not 2 <= len(said) <= LONGEST_REPLY:
        raise ValueError("write one to three sentences")
    if _LABEL.match(said) or _SPEAKER.search(said):
        raise ValueError("write what is said, without a name or a label before it")
    return said


def check_silent(text: str, answer: str) -> str:
    """Something said around an answer, without it."""
    said = check_said(text)
    if holds(said, answer):
        raise ValueError(f"do not say the answer {answer!r} here")
    return said


def says(text: str, answer: str) -> bool:
    if holds(text, answer):
        return True
    words = [word.casefold() for word in re.findall(r"\w+", answer)]
    telling = [word for word in words if len(word) >= _TELLING]
    here = {word.casefold() for word in re.findall(r"\w+", text)}
    if len(telling) < 3 or any(word not in here for word in words if any(c.isdigit() for c in word)):
        return False
    return sum(word in here for word in telling) >= 0.8 * len(telling)


def rendered(prompt: Prompt, writer: Writer, asked: Asked) -> list[Message]:
    """A prompt for `ask: structured`."""
    source, language = writer.source, writer.language
    return prompt.render(place=source.place, sentence=asked.sentence.text, language=language.name, **asked.values)


async def reply_line(writer: Writer, asked: Asked, prompt: Prompt) -> Written | None:
    """The answer as one whole sentence, for `ask: line`."""
    return await writer.line(
        prompt, asked.sentence, lambda text: check_reply(one_line(text), asked.answer), **asked.values
    )


async def around_line(
    writer: Writer, asked: Asked, prompt: Prompt, *, check: Callable[[str, str], str] = check_silent, **more: str
) -> Written | None:
    """One line that is said around the answer and does not hold it."""
    values: dict[str, Any] = asked.values | more
    return await writer.line(prompt, asked.sentence, lambda text: check(one_line(text), asked.answer), **values)


def joined(first: Origin, *others: Origin) -> Origin:
    """Of what several calls made: the first's prompt, and all calls."""
    calls = tuple(call for each in (first, *others) for call in each.calls)
    return first.model_copy(update={"calls": calls})
