"""Sentences with a blank, and the questions that code can make with certainty. No model, no call, no cost.

A blank must be answerable from memory alone, so it comes with its topic, and with the sentence before when it opens
with a pronoun. The answer may not stand in what is shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from gristmill.core.errors import Reject
from gristmill.core.records import Chunk, Fact, Sample
from gristmill.core.stage import StepContext
from gristmill.generate import english
from gristmill.generate.answers import Chosen, choose
from gristmill.generate.source import Source, chat, distinct, source_of
from gristmill.generate.stages import ClozeConfig
from gristmill.generate.wording import check_question, holds, opens_with_pronoun

BLANK = "____"

_WORDINGS = {
    "en": (
        "Fill in the blank ({topic}): {gap}",
        "Complete the sentence about {topic}: {gap}",
        "{topic}. What belongs in the gap? {gap}",
        "Which words are missing here? {topic}: {gap}",
    ),
    "de": (
        "Fülle die Lücke ({topic}): {gap}",
        "Ergänze den Satz über {topic}: {gap}",
        "{topic}. Was gehört in die Lücke? {gap}",
        "Welche Wörter fehlen hier? {topic}: {gap}",
    ),
    "fr": (
        "Complétez le blanc ({topic}) : {gap}",
        "Complétez la phrase sur {topic} : {gap}",
        "{topic}. Que faut-il mettre à la place du blanc ? {gap}",
        "Quels mots manquent ici ? {topic} : {gap}",
    ),
    "es": (
        "Rellena el hueco ({topic}): {gap}",
        "Completa la frase sobre {topic}: {gap}",
        "{topic}. ¿Qué va en el hueco? {gap}",
        "¿Qué palabras faltan aquí? {topic}: {gap}",
    ),
}
_ANY_LANGUAGE = ("{topic}: {gap}", "({topic}) {gap}", "{gap} ({topic})", "{topic} — {gap}")


async def run(config: ClozeConfig, record: Chunk | Fact, ctx: StepContext) -> list[Sample]:
    source = source_of(record, ctx)
    samples = []
    for chosen in choose(source, per_sentence=config.per_sentence):
        if "blank" in config.forms and (gap := gapped(chosen, source)):
            wordings = list(_WORDINGS.get(source.chunk.language, _ANY_LANGUAGE))
            ctx.rng(record, gap).shuffle(wordings)
            for wording in wordings[: config.wordings]:
                samples.append(_sample(wording.format(topic=source.topic, gap=gap), chosen, record, source))
        if "question" in config.forms:
            samples += [_sample(question, chosen, record, source) for question in questions(chosen, source)]
    if not samples:
        raise Reject("nothing to ask for", "no date, number, name or quoted term stands in it")
    return distinct(samples)


def gapped(chosen: Chosen, source: Source) -> str:
    """The sentence with its answer blanked, after the one it refers to; empty where the answer would show anyway."""
    text, span = chosen.sentence.text, chosen.span
    gap = text[: span.start] + BLANK + text[span.end :]
    if opens_with_pronoun(text) and chosen.sentence.before:
        gap = f"{chosen.sentence.before} {gap}"
    shown = f"{source.topic} {gap}"
    return "" if holds(shown, span.text) or shown.count(BLANK) != 1 else gap


def questions(chosen: Chosen, source: Source) -> Iterator[str]:
    """A question in plain English, under its topic when nothing in it says what it is about."""
    if source.chunk.language != "en" or opens_with_pronoun(chosen.sentence.text):
        return
    question = english.question(chosen.sentence.text, chosen.span)
    if question is None:
        return
    with suppress(ValueError):  # it would give its answer away
        yield check_question(question, answer=chosen.span.text, sentence=chosen.sentence, source=source)


def _sample(question: str, chosen: Chosen, record: Chunk | Fact, source: Source) -> Sample:
    return Sample(
        form="chat",
        kind="cloze",
        messages=chat(question, chosen.span.text),
        quotes=(chosen.sentence.quote,),
        language=source.chunk.language,
        parents=(record.id,),
    )
