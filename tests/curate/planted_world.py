"""An invented archipelago: places, the sentences that a document holds about each, and questions on every sentence.

No word list is shared with the filters. Everything follows from a seed; no two places share a name.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from gristmill.core.records import Chunk, Message, Origin, Quote, Sample

ONSETS = ["Br", "Dr", "F", "G", "H", "K", "L", "M", "N", "P", "R", "S", "Sk", "St", "T", "Th", "V", "W", "Cl", "Gr"]
VOWELS = ["a", "e", "i", "o", "u", "ae", "au", "ei"]
MIDDLES = ["ld", "rn", "rk", "ll", "nd", "st", "v", "m", "ss", "lm", "nn", "rth", "gg", "x"]
ENDINGS = ["ow", "a", "en", "ick", "or", "um", "eth", "is", "ay", "ver", "holm", "wick", "mere", "stow"]
FIRST_NAMES = ["Anna", "Bela", "Cora", "Dario", "Edda", "Falk", "Greta", "Hanno", "Ilse", "Jorun", "Karel", "Lena",
               "Milo", "Nora", "Otis", "Petra", "Rolf", "Silke"]  # fmt: skip
BUILDINGS = ["lighthouse", "water mill", "chapel", "signal tower", "boat yard", "salt works", "observatory",
             "rope walk", "granary"]  # fmt: skip
MATERIALS = ["granite", "red brick", "oak beams", "slate", "limestone", "cedar planks", "basalt", "copper sheets"]
GOODS = ["smoked eel", "wool blankets", "tin lamps", "barley beer", "blue glass", "dried plums", "sail cloth",
         "honey cakes"]  # fmt: skip
SIDES = ["northern", "southern", "eastern", "western"]


@dataclass(frozen=True)
class Place:
    """What is told of one place: each fact a sentence, with a short answer and questions after it."""

    name: str
    facts: tuple[tuple[str, str, tuple[str, ...]], ...]  # sentence, answer, questions

    @property
    def text(self) -> str:
        return " ".join(sentence for sentence, _, _ in self.facts)


def names(rng: random.Random) -> Iterator[str]:
    """Endless invented names, none twice."""
    seen: set[str] = set()
    while True:
        name = rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(MIDDLES) + rng.choice(ENDINGS)
        if name not in seen:
            seen.add(name)
            yield name


def person(rng: random.Random, name: Iterator[str]) -> str:
    return f"{rng.choice(FIRST_NAMES)} {next(name)}"


def place(rng: random.Random, name: Iterator[str]) -> Place:
    here, other = next(name), next(name)
    founder, keeper, painter = person(rng, name), person(rng, name), person(rng, name)
    building, material, goods, side = (rng.choice(of) for of in (BUILDINGS, MATERIALS, GOODS, SIDES))
    year, height, steps, cost = (
        rng.randint(1610, 1890),
        rng.randint(12, 70),
        rng.randint(80, 400),
        rng.randint(210, 990),
    )
    facts = (
        (
            f"The {building} of {here} was raised in {year} by {founder} after a hard winter.",
            f"{founder} raised it in {year}.",
            (
                f"Who raised the {building} of {here} after a hard winter?",
                f"In what year was the {building} of {here} raised by its founder?",
                f"Who was it that raised the {building} of {here}, and in what year did that happen?",
            ),
        ),
        (
            f"Its walls are made of {material}, and it stands {height} metres above the {side} harbour.",
            f"It stands {height} metres above the harbour, on walls of {material}.",
            (
                f"How many metres above the {side} harbour does the {building} of {here} stand?",
                f"What are the walls of the {building} of {here} made of, and how high does it stand?",
            ),
        ),
        (
            f"Visitors climb {steps} steps to the upper room, where {painter} painted the ceiling with seabirds.",
            f"{painter} painted it, {steps} steps up.",
            (
                f"Which painter covered the ceiling of the upper room at {here} with seabirds?",
                f"How many steps up did somebody paint the ceiling of the {building} at {here}, and who was it?",
            ),
        ),
        (
            f"Today {keeper} keeps the {building} and sells {goods} to travellers from {other}.",
            f"{keeper} sells {goods}.",
            (
                f"Who keeps the {building} of {here} today and sells {goods} to travellers?",
                f"What does {keeper} sell to travellers who come from {other} to {here}?",
            ),
        ),
        (
            f"The repair of the {side} roof cost {cost} crowns, which the people of {other} paid in full.",
            f"It cost {cost} crowns, which the people of {other} paid.",
            (
                f"How many crowns did the repair of the {side} roof at {here} cost?",
                f"Who paid for the repair of the {side} roof of the {building} at {here}, and how much?",
            ),
        ),
    )
    return Place(here, facts)


def chunk(at: Place, *more: str, language: str = "en") -> Chunk:
    """The place's document, with further sentences at its end."""
    text = " ".join([at.text, *more])
    path = f"{at.name.lower()}.md"
    return Chunk(path=path, title=at.name, text=text, start=0, end=len(text), tokens=len(text) // 4, language=language)


def quoted(source: Chunk, words: str) -> Quote:
    start = source.text.index(words)
    return Quote(text=words, start=start, end=start + len(words), path=source.path)


def asked(source: Chunk, sentence: str, question: str, answer: str, *, prompt: str, language: str = "en") -> Sample:
    return Sample(
        form="chat",
        kind="qa",
        messages=(Message(role="user", content=question), Message(role="assistant", content=answer, train=True)),
        quotes=(quoted(source, sentence),),
        language=language,
        parents=(source.id,),
        origin=Origin(stage="questions", prompt=prompt),
    )


def told(source: Chunk, text: str, *, prompt: str, language: str = "en") -> Sample:
    origin = Origin(stage="texts", prompt=prompt)
    return Sample(form="text", kind="rephrase", text=text, language=language, parents=(source.id,), origin=origin)
