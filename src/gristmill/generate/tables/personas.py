"""Invented people, drawn by seed: who writes decides how a text sounds, and many writers make many texts.

Names are ordinary ones of four languages; the rest is in English, since a prompt is what reads it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from gristmill.generate.tables.columns import Persona

FIRST: Mapping[str, str] = {
    "en": "Abigail Alfie Bethan Callum Clara Dylan Edith Fergus Grace Harriet Imogen Jamal Joan Kieran Leah Malcolm "
    "Nadia Oliver Priya Quentin Rosie Samuel Tara Umar Violet Winston Yasmin Zack",
    "de": "Anja Bernd Carla Dieter Elif Friederike Georg Hanna Ingo Jasmin Kai Lena Mehmet Nele Otto Petra Ralf Sabine "
    "Timo Ute Volker Wiebke",
    "fr": "Amélie Baptiste Chloé Damien Élise Fatou Gilles Hélène Inès Julien Karim Louise Mathilde Nicolas Odile "
    "Pascal Rachida Solène Thierry Yvette",
    "es": "Alba Bruno Carmen Diego Elena Fermín Gloria Hugo Inés Joaquín Lucía Marta Nuria Óscar Pilar Quique Rocío "
    "Salvador Teresa Vicente",
}
LAST: Mapping[str, str] = {
    "en": "Ashdown Barlow Carrick Draper Ellison Fairley Greaves Hartnell Iqbal Jessop Kendrick Lomax Mistry Norbury "
    "Okafor Penrose Quill Redfern Stokes Tindall Underhill Vickers Whitlow Yardley",
    "de": "Ackermann Brandl Claussen Demir Ehlers Fuhrmann Gerlach Hofstetter Imhof Jansen Kessler Lindner Maurer "
    "Niebuhr Oster Pohlmann Reuter Seidel Thoma Vogt Wendt Zeller",
    "fr": "Aubert Besson Carpentier Delorme Escoffier Fournel Guérin Haddad Imbert Jourdan Lacombe Marchand Noiret "
    "Ollivier Perrin Renaud Sabatier Traoré Vasseur",
    "es": "Aranda Bermejo Cabrera Domínguez Espinosa Figueroa Gallardo Herrero Ibáñez Lozano Molina Navarro Ochoa "
    "Pacheco Quiroga Robledo Salinas Tejada Vidal",
}
JOBS = (
    "accountant", "baker", "bus driver", "carpenter", "dental nurse", "electrician", "farmer", "fitness trainer",
    "florist", "graphic designer", "hairdresser", "hotel porter", "housekeeper", "journalist", "judge",
    "lab technician",
    "librarian", "lorry driver", "midwife", "music teacher", "night guard", "optician", "paramedic", "pharmacist",
    "plumber", "postal worker", "primary school teacher", "retired engineer", "sailor", "shop assistant",
    "social worker", "software tester", "student of law", "tax adviser", "town clerk", "translator", "vet", "waiter",
    "warehouse worker", "window cleaner",
)  # fmt: skip
PLACES = (
    "a capital city", "a coastal town", "a mountain village", "a mining town", "a new housing estate", "a small island",
    "a suburb of terraced houses", "a university town", "an old harbour quarter", "an industrial town",
    "the edge of a forest", "the middle of nowhere",
)  # fmt: skip
TRAITS = (
    "always in a hurry", "careful with money", "curious about everything", "easily annoyed", "fond of jokes",
    "forgetful", "generous with praise", "hard to please", "interested in how things are made", "new to technology",
    "not one to complain", "patient", "proud of a tidy home", "quick to trust", "sceptical of advertising",
    "soft-hearted", "stubborn", "thorough to the point of pedantry", "tired of empty promises", "worried about waste",
)  # fmt: skip
STYLES = (
    "adds a small anecdote", "begins in the middle", "comes to the point at once", "gives dates and numbers",
    "likes long sentences", "lists things one by one", "makes comparisons", "never uses exclamation marks",
    "sounds like speech", "uses everyday words only", "uses few adjectives", "writes formally",
    "writes in short sentences",
    "writes to a friend, whoever reads it",
)  # fmt: skip


def draw(spec: Persona, rng: random.Random) -> dict[str, str | int]:
    """The parts of one person."""
    language = spec.language if spec.language in FIRST else rng.choice(sorted(FIRST))
    return {
        "name": f"{rng.choice(FIRST[language].split())} {rng.choice(LAST[language].split())}",
        "age": rng.randint(*spec.ages),
        "job": rng.choice(JOBS),
        "place": rng.choice(PLACES),
        "trait": rng.choice(TRAITS),
        "style": rng.choice(STYLES),
    }


def sentence(person: Mapping[str, str | int]) -> str:
    """As a prompt says it."""
    return (
        f"{person['name']}, {person['age']}, {person['job']} in {person['place']}; {person['trait']}; {person['style']}"
    )
