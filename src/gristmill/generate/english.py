"""Questions that code can make from an English sentence where the grammar leaves no doubt; nothing elsewhere.

No word is inflected: only forms of "be", "have" and the modal verbs change places with their subject, a counted noun
gets "how many" before it, and a name that is the whole subject becomes "who or what". Anything else (clauses joined by
"and", long subjects, other verbs) has no question here.
"""

from __future__ import annotations

import re

from gristmill.generate.lexicon import OPENERS, PRONOUNS
from gristmill.generate.spans import AnswerSpan

_AUXILIARY = r"(?:is|are|was|were|has|have|had|can|could|may|might|must|will|would|should)"
_CLAUSE = re.compile(r"^(?P<subject>(?:[\w'\u2019-]+ ){1,6}?)(?P<verb>" + _AUXILIARY + r") (?P<rest>.+)$")
_JOINT = re.compile(r"[,;:(]|\b(?:and|or|but|which|who|whom|whose|that|when|while|where|because|although|though|if)\b")
_TAIL_JOINT = re.compile(
    r"\s?(?:[,;:](?!\d)|[(\u2013\u2014]).*|\s(?:and|but|or|which|who|when|while|where|because|although|though)\b.*"
)
_FULL_SUBJECT = re.compile(
    r"^ (?:" + _AUXILIARY + r"|[a-z]{3,}ed|built|wrote|made|led|won|found|held|kept|gave|took|began|became|ran|drew"
    r"|sold|bought|taught|brought|paid|met|lit|rose|laid|fell|grew|carries|holds|keeps|leads|owns|runs|makes|sells) \w"
)
_DETERMINERS = ("the", "a", "an", "all", "most", "every", "each", "both")
_MEASURE = r"(?:tall|high|long|wide|deep|old|thick|heavy|away)"


def question(sentence: str, span: AnswerSpan) -> str | None:
    """A question whose answer is the span, or None."""
    text = sentence.rstrip(" .!")
    if "?" in text or span.end > len(text):
        return None
    before, after = text[: span.start], text[span.end :]
    if span.kind in ("number", "quantity"):
        return _measured(before, after) or _counted(before, span.text, after)
    if span.kind in ("year", "date"):
        return _dated(before, span.text, after)
    if span.kind in ("name", "term", "quoted"):
        return _named(before, after) or (_subject(before, after) if span.kind == "name" else None)
    return None


def _inverted(before: str, tail: str, opening: str) -> str | None:
    """`opening` + verb + subject + what else was said. `before`: the clause up to where the answer stood."""
    clause = _CLAUSE.match(f"{before.rstrip()} ")
    if clause is None or _JOINT.search(before):
        return None
    subject = clause["subject"].strip()
    if re.search(r"\b(?:\w+ed|by|to)\b", subject):
        return None  # a verb or a phrase of its own: the clause is not what it seems
    placed = _inside(subject)
    if placed is None:
        return None
    words = f"{opening} {clause['verb']} {placed} {clause['rest'].strip()} {tail.strip()}"
    return " ".join(words.split()) + "?"


def _inside(subject: str) -> str | None:
    """A subject that opened its sentence, as it is written inside one; None for a pronoun or another opener."""
    first = subject.split()[0]
    if first.lower() in PRONOUNS or (first.lower() in OPENERS and first.lower() not in _DETERMINERS):
        return None
    return subject[0].lower() + subject[1:] if first.lower() in OPENERS or first.endswith("ing") else subject


def _plain_tail(after: str) -> str | None:
    """What follows the answer in the same clause; None when it cannot be told where the clause ends."""
    tail = _TAIL_JOINT.sub("", after)
    return tail if re.fullmatch(r"(?: [\w'\u2019-]+){0,8}", tail) else None


def _dated(before: str, answer: str, after: str) -> str | None:
    """ "… was built in 1822 by Edda Moor" → "In what year was … built by Edda Moor?"; the date may also come first."""
    shapes = {"year": r"\d{4}", "month": r"[A-Z]\w+ \d{4}", "day": r"[A-Z]\w+"}
    asked = next((name for name, shape in shapes.items() if re.fullmatch(shape, answer)), "date")
    hit = re.search(r"(?:^| )(in|on|since|until|by) $", before, re.IGNORECASE)
    if hit is None or (hit[1].lower() == "by" and asked == "date" and not answer[0].isdigit()):
        return None
    opening = f"{hit[1].capitalize()} what {asked}"
    if hit.start() == 0 and not before[: hit.start()].strip():
        clause = re.match(r"^,? (?P<clause>.+)$", after)
        if clause is None or _JOINT.search(clause["clause"]):
            return None
        return _inverted(clause["clause"], "", opening)
    tail = _plain_tail(after)
    return None if tail is None else _inverted(before[: hit.start()], tail, opening)


def _measured(before: str, after: str) -> str | None:
    """ "The tower is 41 metres tall" → "How tall is the tower?"""
    hit = re.match(rf" ({_MEASURE})(?= |$|,)", after)
    about = re.sub(r" (?:about|nearly|almost|over|some|only|exactly|roughly|around) $", " ", before)
    if hit is None or not re.search(r" (?:is|are|was|were) $", about):
        return None
    tail = _plain_tail(after[hit.end() :])
    clause = re.match(r"^(?P<subject>.+) (?P<verb>is|are|was|were) $", about)
    if (
        tail is None
        or clause is None
        or _JOINT.search(clause["subject"])
        or re.search(rf"\b{_AUXILIARY}\b", clause["subject"])
    ):
        return None
    placed = _inside(clause["subject"])
    return placed and f"How {hit[1]} {clause['verb']} {placed}{tail}?"


def _counted(before: str, answer: str, after: str) -> str | None:
    """ "Three stone bridges cross the Ulm" → "How many stone bridges cross the Ulm?", and in its place elsewhere: "The
    library holds how many maps?"""
    unit = re.fullmatch(r"\S+ ([A-Za-z]+s)", answer)
    counted = f"how many {unit[1]}" if unit else "how many"
    tail = _plain_tail(after)
    if tail is None or (not unit and not re.match(r" (?:[a-z-]+ ){0,2}[a-z-]+s\b", tail + " ")):
        return None
    if re.search(
        r"\b(?:the|a|an|its|his|her|their|first|last|every|each|than|of|one|between|from|to)\s$", before, re.I
    ):
        return None
    if _JOINT.search(before):
        return None
    asked = f"{before}{counted}{tail}?"
    return asked[0].upper() + asked[1:]


def _named(before: str, after: str) -> str | None:
    """ "The festival is called the Night of Lanterns" → "What is the festival called?"; "… built by Edda Moor in 1822"
    → "Who or what was … built by in 1822?"""
    before = re.sub(r" (?:the|an?) $", " ", before)
    tail = _plain_tail(after)
    if tail is None:
        return None
    if re.search(r" (?:called|named|nicknamed|known as|made of|made from|built of|carved from) $", before):
        return _inverted(before, "", "What") if not tail else None
    if re.search(r" \w+(?:ed|en|ht|ne|wn|ilt|ung|id|ade|old) by $", before):
        return _inverted(before, tail, "Who or what")
    return None


def _subject(before: str, after: str) -> str | None:
    """ "Edda Moor lit the lamp in 1871" → "Who or what lit the lamp in 1871?"""
    if before not in ("", "The ") or not _FULL_SUBJECT.match(after) or _JOINT.search(_TAIL_JOINT.sub("", after)):
        return None
    said = _TAIL_JOINT.sub("", after).strip()
    return f"Who or what {said}?" if len(said.split()) > 2 else None
