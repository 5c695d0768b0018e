"""Phrases by which a question leans on a text that its reader does not have, and what makes sense of such a phrase.

"The author" leans; "the author of the anthem" names one. So a phrase of `bare` leans unless what follows it specifies
it, and one of `always` leans wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from gristmill.curate.words import fold, plain


@dataclass(frozen=True)
class Phrases:
    """Words of `owner` specify the phrase before them; so do those of `clause`, of `comma` behind one, and words in
    quotation marks, but not where it stands after a word of `adverb`: "according to the text which king" asks for the
    king. After a verb of `telling` nothing does: "que dit le texte de la mer" asks what it says of the sea."""

    always: tuple[str, ...]
    bare: tuple[str, ...]
    owner: str
    clause: str
    adverb: str
    comma: str = ""
    telling: str = ""


PHRASES = {
    "en": Phrases(
        always=(
            "the given", "this text", "this passage", "this document", "this excerpt", "this paragraph", "this chapter",
            "mentioned above", "described above", "above text", "provided information", "the information provided",
            "according to the source",
        ),
        bare=(
            "the text", "the passage", "the document", "the excerpt", "the paragraph", "the context", "the chapter",
            "the author", "the snippet", "the sentence", "author of the article", "author of the essay",
            "author of the report", "author of the story", "author of the following", "author of the above",
            "author of the provided",
        ),
        owner="of",
        clause="that|which|who|whose|for|by|between|in which|in whom",
        adverb="to|in|from|by|on|per|with|within|under|through",
    ),
    "de": Phrases(
        always=(
            "diesem text", "dieser text", "diesem dokument", "diesem abschnitt", "dieser passage", "oben genannt",
            "oben erwähnt", "diesem kapitel",
        ),
        bare=(
            "der text", "dem text", "des textes", "dem dokument", "das dokument", "des dokuments", "dem abschnitt",
            "der abschnitt", "dem auszug", "der passage", "der autor", "dem autor", "die autorin", "dem kontext",
            "dem kapitel", "der satz", "dem satz", "autor des artikels", "autorin des artikels",
        ),
        owner="des|eines",
        clause="der|einer|von|vom|für|dass",
        adverb="laut|gemäß|nach|so|in|aus|auf|mit|von|zu|bei",
        comma="der|die|das|den|dem|deren|dessen|dass|welcher|welche|welches|in dem|in der",
        telling="sagt|sagte|erzählt|berichtet|schreibt|beschreibt|nennt|hält|meint|gibt|liefert|spricht",
    ),
    "fr": Phrases(
        always=("ce texte", "ce passage", "ce document", "cet extrait", "ce paragraphe", "ce chapitre",
                "mentionné ci dessus"),
        bare=("le texte", "du texte", "le passage", "le document", "du document", "l extrait", "le paragraphe",
              "l auteur", "le contexte", "la phrase", "auteur de l article"),
        owner="de|du|des|d",
        clause="que|qu|qui|dont|où",
        adverb="selon|dans|après|par|sur|à|avec",
        telling="dit|pense|parle|raconte|écrit|affirme|explique|mentionne|décrit",
    ),
    "es": Phrases(
        always=("este texto", "este documento", "mencionado anteriormente"),
        bare=("el texto", "el pasaje", "el documento", "el fragmento", "el párrafo", "el autor", "el contexto",
              "autor del artículo"),
        owner="de|del",
        clause="que|quien|cuyo|cuya",
        adverb="según|en|por|a|con|sobre",
        telling="dice|opina|piensa|habla|cuenta|describe|menciona|explica",
    ),
    "it": Phrases(
        always=("questo testo", "questo documento", "menzionato sopra"),
        bare=("il testo", "il brano", "il documento", "il paragrafo", "l autore", "il contesto",
              "autore dell articolo"),
        owner="di|del|dello|della|dei|degli|delle|dell|d",
        clause="che|cui",
        adverb="secondo|in|per|a|con|su",
        telling="dice|pensa|parla|racconta|scrive|afferma|descrive|spiega",
    ),
}  # fmt: skip


def leaning(text: str, language: str) -> str:
    """The first of the language's phrases by which a text leans on another one; empty where there is none."""
    known = PHRASES.get(language)
    if known is None:
        return ""
    return held(text, known.always) or next(_unspecified(fold(text), known), "")


def held(text: str, phrases: Sequence[str]) -> str:
    """The first of these phrases that stands in the text, whole words compared."""
    folded = f" {plain(text)} "
    return next((phrase for phrase in phrases if f" {plain(phrase)} " in folded), "")


def _unspecified(folded: str, known: Phrases) -> Iterator[str]:
    for hit in _pattern(known).finditer(folded):
        named = hit["owner"] or (hit["clause"] and not hit["adverb"])
        if hit["telling"] or not named:
            yield plain(hit["phrase"])


@cache
def _pattern(known: Phrases) -> re.Pattern[str]:
    """Only blanks stand between a phrase and what specifies it, but for German's comma: after the one in "according to
    the text, which king" another thing is asked. Phrases may overlap."""
    phrases = "|".join(r"\W+".join(plain(phrase).split()) for phrase in known.bare)
    before = "".join(rf"(?P<{name}>\b{_words(getattr(known, name))}\s+)?" for name in ("telling", "adverb"))
    clause = rf"\s+{_words(known.clause)}|,\s+{_words(known.comma)}|\s+(?=[\"“„«‘])"
    return re.compile(
        rf"{before}\b(?=(?P<phrase>{phrases})\b(?:(?P<owner>\s+{_words(known.owner)})|(?P<clause>{clause}))?)"
    )


def _words(choice: str) -> str:
    """One of these words, with another after it; nothing at all where there is none to choose."""
    words = fold(choice).replace(" ", r"\s+")
    return rf"(?:{words})\b['’]?(?=\s*[\"“„«‘]?\s*\w)" if words else "(?!)"
