"""Words as the gates compare them: case, accents and inflection folded away, function words known per language.

Word lists are short on purpose. A language without a list is treated by word length alone (`content_words`), and a
script without spaces is compared as running text (`Pool.holds`).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

WORD = re.compile(r"[^\W\d_]\w*")
_ACRONYM = re.compile(r"\b(?:[^\W\d_]\.){2,}")
_DOTTED = re.compile(r"\.[^\W\d_]\.")  # every acronym holds it, and it is found ten times as fast
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
"""Letters of scripts without spaces, as of a character class."""

_UNSPACED = re.compile(f"[{UNSPACED}]")

FUNCTION_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(listed.split())
    for language, listed in {
        "en": """
            a an the and or but nor so yet if then than that this these those there here it its he she they
            them his her hers their theirs we us our you your i me my who whom whose which what when where
            why how is are was were be been being am do does did done has have had having will would shall
            should can could may might must not no yes of in on at by to from for with without into onto
            over under after before during since until while as about between among through because also
            only both all each every some any more most many much few other another such very too once one
            now still just however
        """,
        "de": """
            der die das den dem des ein eine einen einem einer eines kein keine keinen keinem keiner und
            oder aber doch wenn weil dass daß als wie ob so er sie es ihn ihm ihr ihre ihren ihrem ihrer
            seine seinen seinem seiner sein wir uns unser du dich dir ich mich mir man wer wen wem wessen
            was wann wo warum wieso welche welcher welches welchen welchem ist sind war waren wird werden
            wurde wurden worden geworden hat haben hatte hatten kann können konnte muss müssen soll darf
            nicht nein ja in im an am auf aus bei beim mit von vom vor zu zum zur nach seit bis für über
            unter durch gegen ohne um zwischen während wegen auch nur noch sehr mehr diese dieser dieses
            diesen diesem jede jeder jedes alle allen dort hier dann da sich
        """,
        "fr": """
            le la les l un une des du de d et ou mais donc or ni car si que qu qui quoi dont où quand
            comment pourquoi quel quelle quels quelles il elle ils elles on nous vous je tu me te se s lui
            leur leurs son sa ses mon ma mes ton ta tes notre nos votre vos ce c cet cette ces cela ça est
            sont était étaient être été sera seront a ont avait avaient avoir eu ne n pas non oui à au aux
            en dans sur sous par pour avec sans vers chez entre depuis pendant avant après comme plus moins
            très aussi tout tous toute toutes y
        """,
        "es": """
            el la los las un una unos unas lo y o pero si que quien quién quienes cual cuál cuándo cuando
            dónde donde cómo como por para con sin sobre entre desde hasta en de del al a es son era eran
            fue fueron ser sido está están ha han había no sí se su sus le les me mi tu te nos él ella ellos
            ellas este esta esto ese esa eso más muy también qué
        """,
        "it": """
            il lo la i gli le un uno una l e ed o ma se che chi cui quale quali quando dove come perché per
            con senza su tra fra da di del della dei delle dello degli nel nella nei nelle al alla ai alle
            in a è sono era erano fu furono essere stato stata ha hanno aveva non sì si suo sua suoi loro
            questo questa quello quella più molto anche dal dalla cosa
        """,
        "nl": """
            de het een en of maar als dan dat die dit deze wie wat waar wanneer waarom hoe welke is zijn was
            waren wordt werd werden worden heeft hebben had kan niet nee ja in op aan bij met van voor naar
            uit over onder door tot om tussen ook hij zij ze er hun haar ik je we ons
        """,
    }.items()
}
NAMES_NOUNS = frozenset({"de", "lb"})
"""Languages that write every noun with a capital, so that a capital alone does not tell a name."""

_SUFFIXES = {"de": ("s", "es", "n", "en", "e", "er", "ern", "em", "ns", "ens"), "": ("s", "es")}


def tidy(text: str) -> str:
    """Compatibility forms resolved, dotted acronyms closed (U.S.A. -> USA)."""
    normal = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return _ACRONYM.sub(lambda hit: hit[0].replace(".", ""), normal) if _DOTTED.search(normal) else normal


def fold(text: str) -> str:
    """`tidy`, in lower case and without accents."""
    joined = tidy(text)
    if joined.isascii():
        return joined.lower()
    bare = "".join(c for c in unicodedata.normalize("NFD", joined.casefold()) if not unicodedata.combining(c))
    return unicodedata.normalize("NFC", bare)


def words(text: str) -> list[str]:
    """Every word and number of a text, folded. For comparing texts with each other."""
    return re.findall(r"\w+", fold(text))


def plain(text: str) -> str:
    """A text as duplicates and answers are compared: folded words with one space between."""
    return " ".join(words(text))


@cache
def function_words(language: str) -> frozenset[str]:
    return frozenset(fold(word) for word in FUNCTION_WORDS.get(language, frozenset()))


def content_words(text: str, language: str) -> list[str]:
    """The folded words that carry meaning: no function words; in an unlisted language, those over three letters."""
    known = function_words(language)
    tokens = (word for word in words(text) if not word[0].isdigit())
    if known:
        return [word for word in tokens if word not in known and (len(word) > 1 or _UNSPACED.match(word))]
    return [word for word in tokens if len(word) > 3 or _UNSPACED.search(word)]


def inflections(word: str, language: str) -> set[str]:
    """A folded word and what is left of it without a plural, genitive or (German) case ending."""
    endings = _SUFFIXES.get(language, _SUFFIXES[""])
    return {word} | {word[: -len(end)] for end in endings if word.endswith(end) and len(word) - len(end) >= 3}


def _alike(one: str, other: str) -> bool:
    """Same stem, loosely: built and builder no, visit and visited yes. For content words, never for names."""
    short, long = sorted((one, other), key=len)
    prefix = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    return prefix >= 4 and len(short) - prefix <= 2 and len(long) - prefix <= 4


@dataclass(frozen=True)
class Pool:
    """The words that something may rest on: a quote, a question, a whole chunk."""

    text: str
    tokens: frozenset[str]
    stems: frozenset[str]
    language: str

    @classmethod
    def of(cls, text: str, language: str) -> Pool:
        tokens = frozenset(words(text))
        stems = frozenset(stem for token in tokens for stem in inflections(token, language))
        return cls(fold(text), tokens, stems, language)

    def holds_name(self, word: str) -> bool:
        """The word itself, in any case and with or without an ending; running text for scripts without spaces."""
        if _UNSPACED.search(word):
            return word in self.text
        return not self.stems.isdisjoint(inflections(word, self.language))

    def holds(self, word: str) -> bool:
        """`holds_name`, or a word of the same stem, or (German) a compound with it or of it."""
        if self.holds_name(word):
            return True
        compound = self.language in NAMES_NOUNS and len(word) >= 5
        return any(_alike(word, token) or (compound and len(token) >= 5 and (word in token or token in word))
                   for token in self.tokens)  # fmt: skip
