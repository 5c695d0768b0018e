"""A conversation as a model wrote it, cut back to what is sound. Words are never changed: only left out."""

from __future__ import annotations

import re
from dataclasses import dataclass

from gristmill.generate.wording import copied, word_count

_END = re.compile(r"[.!?\u2026\u3002\uff01\uff1f][\"'\u201d\u2019\u00bb)*]*$|[\"\u201d\u00bb*]$")
_REMARK = re.compile(
    r"(?:^|\n)\s*[(\[*]*(?:note|ooc|author'?s note|anmerkung|remarque|nota)\b\s*(?::|[-\u2013]\s).*", re.I | re.S
)
_NARRATOR = ("narrator", "narration", "erzähler", "narrateur", "narrador")
_RUN, _SAID_BEFORE = 4, 0.6  # words in a row, and the share of them: two replies of one person may open alike
_TASK = re.compile(r"\bscene card\b|\bvoice of the book\b|\bpassage (?:you|from the book)\b", re.IGNORECASE)
_USER = ("user", "{user}", "you")


@dataclass(frozen=True)
class Exchange:
    user: str
    reply: str


def without_label(text: str, names: tuple[str, ...]) -> str:
    """A message without its speaker's name, and without remarks to the reader after it. What a narrator says is the
    speaker's own."""
    text = _REMARK.sub("", text).strip()
    labels = "|".join(map(re.escape, (*names, *_NARRATOR)))
    return re.sub(rf"(?:^|(?<=\n))[*\"]*(?:{labels})[*]*\s*:[*]*\s*", "", text, flags=re.I).strip()


def repaired(exchanges: list[Exchange], *, name: str, words: int) -> list[Exchange]:
    """Up to the first message that is empty, too long, mostly said before, of its own task or for the other side; and
    without a last reply that breaks off."""
    kept: list[Exchange] = []
    said: list[str] = []
    character = tuple(dict.fromkeys(part for part in (name, *name.split()) if part))
    for exchange in exchanges:
        user, reply = without_label(exchange.user, _USER), without_label(exchange.reply, character)
        both = [user, reply]
        sound = all(both) and not repeats(user, said) and not repeats(reply, [*said, user])
        if not sound or max(len(text.split()) for text in (user, reply)) > words:
            break
        if speaks_as(user, character) or speaks_as(reply, _USER) or any(map(speaks_of_task, both)):
            break
        said += both
        kept.append(Exchange(user, reply))
    while kept and not _END.search(kept[-1].reply):
        kept.pop()
    return kept


def repeats(text: str, said: list[str]) -> bool:
    """Whether a message was said before, as it is or but for a few words. A word or two may be said again, inside of
    another message."""
    if word_count(text) > _RUN:
        return copied(text, said, run=_RUN) > _SAID_BEFORE
    own, *before = [re.findall(r"\w+", each.casefold()) for each in (text, *said)]
    return own in before


def speaks_of_task(text: str) -> bool:
    """Of a card, a passage or a task: nobody in the scene knows of them."""
    return _TASK.search(text) is not None


def speaks_as(text: str, names: tuple[str, ...]) -> bool:
    """Whether a line of the text opens with one of these speakers' names."""
    labels = "|".join(map(re.escape, names))
    return re.search(rf"^[*\"]*(?:{labels})[*]*\s*:", text, re.I | re.M) is not None


def narrates(text: str, name: str) -> bool:
    """Whether a message tells what someone does instead of saying something: "Ilse Marren nods"."""
    parts = "|".join(map(re.escape, sorted(name.split(), key=len, reverse=True)))
    return (
        bool(parts)
        and re.match(rf"[*_\"]*(?:the )?(?:(?:{parts})\s+)+(?-i:[a-z\u00df-\u00ff])", text, re.I) is not None
    )
