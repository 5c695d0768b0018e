"""Talks that go on: an answer ends with the offer to tell more, and who asked says yes or asks on."""

from __future__ import annotations

from collections.abc import Sequence

from gristmill.generate.recall.group import Turn
from gristmill.generate.writer import Writer

ACCEPTANCES: dict[str, tuple[str, ...]] = {
    "en": (
        "Yes, please.",
        "Yes, tell me.",
        "Go on.",
        "I would like that.",
        "Please do.",
        "Sure.",
        "Oh yes, that interests me.",
        "All right, let us hear it.",
        "Of course.",
        "That would help, thanks.",
    ),
    "de": ("Ja, bitte.", "Gern.", "Ja, erzählen Sie.", "Das würde mich interessieren.", "Bitte, nur zu.", "Klar."),
    "fr": (
        "Oui, s'il vous plaît.",
        "Volontiers.",
        "Oui, dites-moi.",
        "Cela m'intéresse.",
        "Bien sûr.",
        "Je vous écoute.",
    ),
    "es": ("Sí, por favor.", "Claro.", "Sí, cuénteme.", "Me interesa.", "Adelante.", "Con mucho gusto."),
    "it": ("Sì, grazie.", "Volentieri.", "Certo.", "Mi interessa.", "Sì, mi dica."),
    "nl": ("Ja, graag.", "Graag.", "Ja, vertel maar.", "Zeker.", "Dat wil ik wel weten."),
}
"""How people say yes to an offer, in the languages where code can write it."""

_ACCEPTED = 0.5  # share of offers that are accepted in a few words


def offered(turns: Sequence[Turn], offers: Sequence[str], writer: Writer) -> tuple[Turn, ...]:
    """Each answer but the last with the offer to tell what comes next; by seed the offer is accepted, in place of the
    next question."""
    accepts = ACCEPTANCES.get(writer.language.code, ())
    found = [turns[0]]
    for number, (turn, offer) in enumerate(zip(turns[1:], offers, strict=False)):
        rng, before = writer.ctx.rng(writer.record, "accepts", number), found[-1]
        found[-1] = Turn(before.question, f"{before.answer} {offer.strip()}", before.rests_on, before.opening)
        question = rng.choice(accepts) if accepts and rng.random() < _ACCEPTED else turn.question
        found.append(Turn(question, turn.answer, turn.rests_on, turn.opening))
    return tuple(found)
