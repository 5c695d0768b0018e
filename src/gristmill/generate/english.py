"""Questions that code can make from an English sentence where the grammar leaves no doubt; nothing elsewhere.

Forms of "be", "have" and the modal verbs change places with their subject, a few listed verbs take "does", a counted
noun gets "how many" before it, and a name that is the whole subject becomes "who" or, where code cannot know, "who or
what". Anything else (clauses joined by "and", long subjects, other verbs) has no question here.
"""

from __future__ import annotations

import re

from gristmill.generate import lexicon as words
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
_DOES = {verb: verb.removesuffix("s") for verb in words.S_VERBS} | words.OTHER_VERBS
_DONE_AT = (
    r"(?:held|built|born|found|ground|cast|made|kept|buried|founded|signed|baked|sold|stored|moored|brewed"
    r"|carved|raised)"
)
_STREET = re.compile(r"(?:Lane|Street|Road|Green|Square|Hill|Island|Avenue|Row|Quay|Bridge)$")
_HUMAN = r"(?:designed|wrote|founded|drew|built|invented|carved|painted|baked|composed|taught|signed|married|lit)\b"
_NOT_A_NOUN = (
    r"(?:an?|the|in|of|at|on|to|for|from|by|with|each|every|per|and|or|that|which|who|as|apart|long|since|until|after)"
)
_CALLED = r"(?:called|named|nicknamed|known as|made of|made from|built of|carved from)"
_DETERMINERS = ("the", "a", "an", "all", "most", "every", "each", "both")
_MEASURE = r"(?:tall|high|long|wide|deep|old|thick|heavy|away)"


def question(sentence: str, span: AnswerSpan) -> str | None:
    """A question whose answer is the span, or None."""
    text = sentence.rstrip(" .!")
    if "?" in text or span.end > len(text):
        return None
    before, after = text[: span.start], text[span.end :]
    if span.kind in ("number", "quantity"):
        return _measured(before, after) or _how_many(before, span.text, after) or _counted(before, span.text, after)
    if span.kind in ("year", "date"):
        return _dated(before, span.text, after)
    if span.kind in ("name", "term", "quoted"):
        return _named(before, span.text, after) or (_subject(before, after) if span.kind == "name" else None)
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
    asked = f"{opening} {clause['verb']} {placed} {clause['rest'].strip()} {tail.strip()}"
    return " ".join(asked.split()) + "?"


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


def _how_many(before: str, answer: str, after: str) -> str | None:
    """ "The Salt Court has nine members" → "How many members does the Salt Court have?" """
    clause = re.match(rf"^(?P<subject>.+) (?P<verb>{'|'.join(_DOES)}) $", before)
    tail = _plain_tail(after)
    placed = clause and _inside(clause["subject"])
    if clause is None or placed is None or tail is None or _unclear(clause["subject"]):
        return None
    unit = re.fullmatch(r"\S+ ([A-Za-z]+s)", answer)
    noun = re.match(rf"(?: (?!{_NOT_A_NOUN}\b)[a-z-]+){{1,3}}", tail)
    if unit is None and (noun is None or not noun[0].endswith("s")):
        return None
    counted, rest = (unit[1], tail) if unit else (noun[0].strip(), tail[noun.end() :]) if noun else ("", "")
    return f"How many {counted} does {placed} {_DOES[clause['verb']]}{rest}?"


def _unclear(subject: str) -> bool:
    """Holds a verb or a clause of its own, or is long: what follows may not be said of it."""
    return bool(_JOINT.search(subject) or re.search(rf"\b(?:{_AUXILIARY}|not)\b", subject)) or len(subject.split()) > 9


def _named(before: str, answer: str, after: str) -> str | None:
    """ "The festival is called the Night of Lanterns" → "What is the festival called?"; "… built by Edda Moor in 1822"
    → "Who was … built by in 1822?"; "The bread is the tarry loaf" → "What is the bread?" """
    with_article = re.compile(r"(?: |^)(?:the|an?) $")
    article = bool(with_article.search(before)) or bool(re.match(r"(?:the|an?) ", answer))
    before = with_article.sub(" ", before)
    tail = _plain_tail(after)
    if tail is None:
        return None
    if re.search(rf" {_AUXILIARY}(?: (?:also|now|often|still))? {_CALLED} $", before):
        return _inverted(before, "", "What") if not tail else None
    if re.search(r" \w+(?:ed|en|ht|ne|wn|ilt|ung|id|ade|old) by $", before):
        return _inverted(before, tail, "Who or what" if article else "Who")
    if re.search(r" (?:is|are|was|were) $", before):
        return _is(before, article=article) if not tail else None
    return _where(before, answer, tail)


def _is(before: str, *, article: bool) -> str | None:
    """ "The keeper of the tower is Tam Hale" → "Who is the keeper of the tower?" """
    clause = re.match(r"^(?P<subject>.+) (?P<verb>is|are|was|were) $", before)
    placed = clause and _inside(clause["subject"])
    if clause is None or placed is None or _unclear(clause["subject"]) or len(placed.split()) < 3:
        return None
    asked = "Who" if _person(placed) else "What" if article else "Who or what"
    return f"{asked} {clause['verb']} {placed}?"


def _person(phrase: str) -> bool:
    """Whether its head noun, the last word before a preposition, is one of a person."""
    return re.split(r" (?:of|in|at|on|for|from|with|to)\b", phrase)[0].split()[-1].lower() in words.PEOPLE


def _where(before: str, answer: str, tail: str) -> str | None:
    """ "The treaty was signed in Kessel" → "Where was the treaty signed?"; "The inn stands on Vetch Lane" → "Where does
    the inn stand?" """
    hit = re.search(r" (in|at|on) $", before)
    if hit is None or (hit[1] == "on" and not _STREET.search(answer)):
        return None
    said = before[: hit.start()]
    if re.search(rf" {_AUXILIARY} {_DONE_AT}$", said):
        return _inverted(said, tail, "Where")
    clause = re.match(rf"^(?P<subject>.+) (?P<verb>{'|'.join(sorted(words.PLACED_VERBS))})$", said)
    placed = clause and _inside(clause["subject"])
    if clause is None or placed is None or _unclear(clause["subject"]):
        return None
    return f"Where does {placed} {_DOES[clause['verb']]}{tail}?"


def _subject(before: str, after: str) -> str | None:
    """ "Edda Moor lit the lamp in 1871" → "Who lit the lamp in 1871?"; "who or what" where it may be a thing."""
    if before not in ("", "The ") or not _FULL_SUBJECT.match(after) or _JOINT.search(_TAIL_JOINT.sub("", after)):
        return None
    said = _TAIL_JOINT.sub("", after).strip()
    called = re.match(r"(?:is|was) (?:the|an?) (.+)", said)
    asked = "Who" if re.match(_HUMAN, said) or (called and _person(called[1])) else "Who or what"
    return f"{asked} {said}?" if len(said.split()) > 2 else None
