"""What a writer is told besides the facts, chosen by code: what a vague question may not name, what an unanswerable one
asks for, what one with a false premise asks for instead of its number. Weak writers ask for what they see; these keep
them from it. The prompts are in English whatever is written, so these are too."""

from __future__ import annotations

import re

from gristmill.core.stage import StepContext
from gristmill.generate.recall.claims import Claim, says
from gristmill.generate.recall.group import Group, in_full
from gristmill.generate.source import Sentence
from gristmill.generate.spans import names_in, pick
from gristmill.generate.writer import Writer

DETAILS = (
    "what it cost",
    "who paid for it",
    "how many people worked on it",
    "what it was called before",
    "how much it weighs",
    "who owned it before",
    "what it looked like fifty years ago",
    "how many people know of it",
    "who wrote about it first",
    "what went wrong the first time",
    "who was against it, and why",
    "what will become of it next year",
)
"""Details that documents seldom tell. Whether these do is for the proof to find out."""

_NOUNS = frozenset({"de", "lb"})  # languages that write every noun with a capital
_NAME_AMONG_NOUNS = re.compile(r"(?:\b(?:von|vun|in|aus|bei|nach|zu) |(?<=[a-zäöüß,] )[A-ZÄÖÜ]\w+ )(?=([A-ZÄÖÜ]\w+))")


def names_of(sentence: Sentence, language: str) -> list[str]:
    """The words of a sentence that name somebody or some place. Where every noun has a capital, those that follow
    another noun or a word of place: Familie Stolt, von Grauwick."""
    if language in _NOUNS:
        return sorted(set(_NAME_AMONG_NOUNS.findall(in_full(sentence))))
    return sorted(names_in([f"- {in_full(sentence)}"]))


def names_tell(writer: Writer) -> bool:
    """Whether capitals in an answer tell names, spelled as in its source: not in German, and not in a translation."""
    return writer.language.code == writer.source.chunk.language and writer.language.code not in _NOUNS


def hints(group: Group, claim: Claim | None, ctx: StepContext) -> dict[str, str]:
    return {
        "names": ", ".join(names_of(group.begin, group.anchor.chunk.language)) or "-",
        "detail": ctx.rng(group.draft, "detail").choice(DETAILS),
        "claim": claim.text if claim else "",
        "wrong": claim.wrong if claim else "",
        "right": claim.right if claim else "",
        "target": _target(group, claim) if claim else "",
    }


def _target(group: Group, claim: Claim) -> str:
    """The best answer in the sentence that is not the number in question."""
    source = group.anchor
    found = pick(group.begin.text, language=source.chunk.language, names=source.names)
    return next((span.text for span in found if not says(span.text, claim.right)), "how or why it is so")
