"""Questions that lean on a text nobody shows, and questions that hold the same words and make sense alone.

No phrase list is shared with the filter. `{place}`, `{thing}` and `{who}` are invented names.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.curate.planted_world import asked, chunk, names, person, place

from gristmill.core.records import Chunk, Sample

SOUND = {
    "en": (
        "Who is the author of the anthem of {place}?",
        "In which year did the author of The Drowned {thing} die?",
        "What does the sentence for smuggling amount to at {place}?",
        "How many pages has the document that founded {place}?",
        "In the context of tides, what is a neap at {place}?",
        "When was the author who wrote The Bells of {place} born?",
        "What is the title of the document that freed {place} from its toll?",
        "How long is the sentence which the court of {place} passes on a wrecker?",
        "In the text of the treaty of {place}, who is called warden?",
        "How long did the passage of the Grey {thing} to {place} take?",
        "Who is named in the chapter of saints at {place}?",
        "Where does the document by which {place} became free lie?",
        "What does the sentence \"The tide keeps no {thing}\" mean to a pilot?",
        "How wide is the paragraph of lime trees that leads to {place}?",
        "What did {who} do in the context of the herring war of {place}?",
        "Was {who} the author whose plays are given at {place}?",
    ),
    "de": (
        "Wer ist der Autor der Hymne von {place}?",
        "In welchem Jahr starb der Autor des Romans „Die ertrunkene Glocke von {place}“?",
        "Wie lautet der Satz des Pythagoras in der Schule von {place}?",
        "Wo liegt heute das Dokument, das die Stadt {place} gegründet hat?",
        "Wie alt war die Autorin von Die Glocken von {place}, als sie starb?",
        "Was bedeutet der Satz, dass in {place} keine Flut wartet?",
    ),
    "fr": (
        "Qui est l’auteur de l’hymne de {place} ?",
        "En quelle année est mort l'auteur du roman La Cloche noyée de {place} ?",
        "Combien de pages compte le document qui a fondé la ville de {place} ?",
        "Dans le contexte des marées, que signifie la morte-eau à {place} ?",
        "Combien de temps dure le passage du col de {place} en hiver ?",
    ),
    "es": (
        "¿Quién es el autor del himno de {place}?",
        "¿Cuántas páginas tiene el documento que fundó la ciudad de {place}?",
        "En el contexto de las mareas, ¿qué es una marea muerta en {place}?",
    ),
    "it": (
        "Chi è l’autore dell’inno di {place}?",
        "Quante pagine ha il documento che fondò la città di {place}?",
        "Chi scrisse il testo della canzone che si canta a {place}?",
    ),
}  # fmt: skip

LEANING = {
    "en": (
        "Who built the tower of {place} according to the text?",
        "According to the passage, which king came to {place}?",
        "According to the passage which king came to {place}?",
        "What does the author say of {place}?",
        "What does the author of the text think of {place}?",
        "Who is the author of this passage on {place}?",
        "Which reason is given in the document for the fall of {place}?",
        "What is the main idea of the paragraph about {place}?",
        "What can be learned from the context that surrounds {place}?",
        "Which word in the sentence describes {place}?",
        "What is the name of {who} in the given account?",
        "Why was {place} left, as mentioned above?",
        "In the excerpt, that is read by {who}, what happens?",
        "Which events at {place} does the chapter describe?",
        "What does {who} do at the end of the text?",
        "Based on the information provided, how old is {who}?",
        "What is the tone of the author of the following text on {place}?",
    ),
    "de": (
        "Wann wurde laut dem Text der Leuchtturm von {place} gebaut?",
        "Wie bezeichnet der Text die Mühle von {place}?",
        "Was sagt der Autor von der Mühle in {place}?",
        "Wer ist der Autor des Textes über {place}?",
        "Welchen Grund nennt der Text für den Sturm über {place}?",
        "Was geschieht in dem Abschnitt, der von {place} handelt?",
    ),
    "fr": (
        "Que dit le texte de la mer près de {place} ?",
        "Selon le texte qui a construit la tour de {place} ?",
        "Que pense l'auteur de la ville de {place} ?",
        "Qui est l’auteur du texte sur la ville de {place} ?",
        "Quel mot de la phrase décrit {place} ?",
    ),
    "es": (
        "Según el texto, ¿quién construyó la torre de {place}?",
        "¿Qué dice el texto del molino de {place}?",
        "¿Quién es el autor de este texto sobre {place}?",
    ),
    "it": (
        "Secondo il testo, chi costruì la torre di {place}?",
        "Che cosa dice l’autore della torre di {place}?",
        "Di che cosa parla il brano su {place}?",
    ),
}  # fmt: skip

THINGS = ["Bell", "Mill", "Anchor", "Lantern", "Heron", "Rope"]


def questions(seed: int, templates: dict[str, tuple[str, ...]], *, times: int) -> Iterator[tuple[Chunk, Sample]]:
    """Each template so many times, every time of another place, with its source."""
    rng = random.Random(f"questions {seed}")
    name = names(rng)
    for _ in range(times):
        for language, asks in templates.items():
            for ask in asks:
                home = place(rng, name)
                source = chunk(home, language=language)
                said = ask.format(place=home.name, thing=rng.choice(THINGS), who=person(rng, name))
                yield source, asked(source, home.facts[0][0], said, person(rng, name), prompt="", language=language)
