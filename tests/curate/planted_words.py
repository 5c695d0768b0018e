"""Texts in other languages, unsafe lines, and lines that only look so.

The unsafe ones are what a filter is for, and mild beside what it meets; a third is disguised as people disguise it.
"""

from __future__ import annotations

import random

FOREIGN = {
    "de": (
        "Der alte Turm von {a} steht seit vielen Jahren am Ufer des Sees.",
        "Jeden Morgen öffnet die Wärterin das schwere Tor für die Besucher aus {b}.",
        "Im Winter wird hier nur am Abend Brot gebacken, weil das Holz knapp ist.",
        "Niemand weiß genau, warum die Glocke damals nicht geläutet wurde.",
    ),
    "fr": (
        "La vieille tour de {a} se dresse depuis longtemps au bord du lac.",
        "Chaque matin, la gardienne ouvre la lourde porte aux visiteurs venus de {b}.",
        "En hiver, on ne cuit le pain que le soir, parce que le bois est rare.",
        "Personne ne sait exactement pourquoi la cloche n'a pas sonné cette nuit-là.",
    ),
    "es": (
        "La vieja torre de {a} se levanta desde hace mucho tiempo junto al lago.",
        "Cada mañana la guardiana abre la pesada puerta a los visitantes de {b}.",
        "En invierno el pan se hornea solo por la tarde, porque la leña es escasa.",
        "Nadie sabe con certeza por qué la campana no sonó aquella noche.",
    ),
    "it": (
        "La vecchia torre di {a} si trova da molto tempo sulla riva del lago.",
        "Ogni mattina la custode apre la pesante porta ai visitatori di {b}.",
        "In inverno il pane si cuoce soltanto la sera, perché la legna è scarsa.",
        "Nessuno sa con certezza perché la campana non suonò quella notte.",
    ),
    "nl": (
        "De oude toren van {a} staat al vele jaren aan de oever van het meer.",
        "Elke ochtend opent de wachtster de zware poort voor de bezoekers uit {b}.",
        "In de winter wordt hier alleen 's avonds brood gebakken, omdat het hout schaars is.",
        "Niemand weet precies waarom de klok die nacht niet werd geluid.",
    ),
    "pt": (
        "A velha torre de {a} ergue-se há muito tempo na margem do lago.",
        "Todas as manhãs a guardiã abre o pesado portão aos visitantes de {b}.",
        "No inverno o pão só é cozido à tarde, porque a lenha é escassa.",
        "Ninguém sabe ao certo porque é que o sino não tocou naquela noite.",
    ),
    "pl": (
        "Stara wieża w {a} stoi od wielu lat na brzegu jeziora.",
        "Każdego ranka strażniczka otwiera ciężką bramę dla gości z {b}.",
        "Zimą chleb piecze się tutaj tylko wieczorem, ponieważ brakuje drewna.",
        "Nikt dokładnie nie wie, dlaczego tamtej nocy dzwon nie zabrzmiał.",
    ),
}

FOREIGN_LIKE = (
    "The old song of {a}, called Die Mühle am Bach, is still sung here in the evening by fishermen and guests.",
    "On the door of {a} stands Chez Marguerite, which the keeper painted herself when the road to {b} was opened.",
    "{a}, {b} and the villages of San Tomás, Zürich-Oerlikon and Łódź sent letters when the tower was finished.",
    "The dish is known as pasta e fagioli and is served at {a} with bread, onions and a little cheese from {b}.",
    "Keeper: {b}. Harbour: {a}. Season: May to October. Boats: two ferries and a pilot.",
)

INSULTS = ["idiot", "moron", "asshole", "bastard", "bitch", "dickhead", "scumbag", "cunt", "wanker", "motherfucker"]
UNSAFE = {
    "insult": ("You are a stupid {w}, and everybody at the harbour knows it.",
               "Shut up, you {w}, nobody asked you about the boats.",
               "The keeper wrote back: go away, {w}."),
    "profanity": ("What the fuck is this bread, it tastes like shit.",
                  "This fucking ferry never leaves when it should.",
                  "That is bullshit, and the mayor knows it."),
    "threat": ("I will kill you if you ever set foot on this pier again.",
               "I'm going to beat you to death with that oar.",
               "We know where you live, and you will die tonight."),
    "hate": ("People from the islands are vermin and should be exterminated.",
             "All immigrants are subhuman, get rid of every one of them.",
             "Those people are parasites and do not deserve to live."),
    "self-harm": ("Just kill yourself, nobody would miss you.",
                  "The easiest way to commit suicide is what I will tell you now.",
                  "You should cut your wrists, it does not even hurt."),
    "sexual": ("She sucked his cock behind the boat house.",
               "He sent everybody a video of the blowjob.",
               "They were fucking in the upper room, naked and loud."),
}  # fmt: skip

UNSAFE_LIKE = (
    "The cockpit of the ferry was rebuilt in Scunthorpe, and its second mast came from Essex.",
    "A peacock and two cockerels walk about the yard, and the assassin bug lives under its stones.",
    "To stop the pump, kill the process with the second lever and wait for the shuttle to return.",
    "The great tit, the blue tit and the shag breed on the cliffs below the tower in early summer.",
    "The class assembled in the passage, and the assistant assessed each harness with care.",
    "Dick Hancock, a farmer from Penistone, gave an ass and two hens to the poor of the parish.",
    "Frost kills the weeds, and the old keeper says that the cold would kill him if he stayed.",
    "A shot of cold water and a bomb calorimeter stand on the shelf beside the shooting records.",
    "The report on suicide prevention hangs in the hall, with the number of a help line beneath it.",
    "The bitter almond tree was cut back, and its bark was used to dye sails a dark red colour.",
    "Native oysters are farmed here, and the parasites that trouble them are counted twice a year.",
    "In the play the villain cries that all is lost, and the crowd in the hall shouts him down.",
)

_DISGUISES = ({"i": "1", "s": "$"}, {"u": "*", "i": "*"}, {"o": "0", "a": "@"})
_HEAVY = ["fuck", "shit", "bitch", "cunt", "asshole", "bastard", "moron", "idiot", "cock", "kill"]


def disguised(rng: random.Random, text: str) -> str:
    """One heavy word written as filters are dodged: with signs for letters, stretched, or with gaps."""
    found = [word for word in _HEAVY if word in text.lower()]
    if not found:
        return text.upper()
    word, way = rng.choice(found), rng.randrange(4)
    at = text.lower().index(word)
    written = text[at : at + len(word)]
    if way == 0:
        written = "".join(rng.choice(_DISGUISES).get(c, c) for c in written)
    elif way == 1:
        written = written.replace(written[1], written[1] * 4, 1)
    elif way == 2:
        written = written.upper()
    else:
        written = written[0] + "".join(f".{c}" for c in written[1:])
    return text[:at] + written + text[at + len(word) :]


def unsafe(rng: random.Random, at: int) -> str:
    lines = list(UNSAFE.values())[at % len(UNSAFE)]
    line = rng.choice(lines).format(w=rng.choice(INSULTS))
    return disguised(rng, line) if rng.random() < 0.33 else line


def foreign(rng: random.Random, at: int, a: str, b: str) -> tuple[str, str]:
    """A language, and a few sentences in it."""
    language = list(FOREIGN)[at % len(FOREIGN)]
    sentences = FOREIGN[language]
    return language, " ".join(rng.sample(sentences, rng.randint(2, 4))).format(a=a, b=b)
