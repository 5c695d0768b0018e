"""Numbers as values: 1,200 and 1200 and (German) 1.200 are one number, twelve is 12, and 1.5 is not 15.

What a separator means depends on the language: a point groups thousands where a comma is the decimal sign. A form that
can be no number (12.03.1990, 3.11.7) is kept as it stands, with its parts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Set
from dataclasses import dataclass
from decimal import Decimal

from gristmill.curate.words import fold, words

_SPACES = " \u00a0\u202f\u2009"
_NUMBER = re.compile(rf"(?<![\w.,])([-−]?)(\d+(?:[.,:]\d+)*(?:[{_SPACES}'’]\d{{3}}(?!\d))*(?:[.,]\d+)?)")
_SHORT_RANGE = re.compile(r"(?<!\d)(\d{2})(\d{2})\s?[-–—/]\s?(\d{2})(?!\d)")
_POINT_DECIMAL = frozenset({"en", "zh", "ja", "ko", "th", "he", "hi"})

_WORDS = {
    "en": "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty",
    "de": "eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn sechzehn siebzehn "
    "achtzehn neunzehn zwanzig",
    "fr": "un deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize dix-sept dix-huit "
    "dix-neuf vingt",
    "es": "uno dos tres cuatro cinco seis siete ocho nueve diez once doce trece catorce quince dieciséis diecisiete "
    "dieciocho diecinueve veinte",
    "it": "uno due tre quattro cinque sei sette otto nove dieci undici dodici tredici quattordici quindici sedici "
    "diciassette diciotto diciannove venti",
}
_TENS = {
    "en": "thirty forty fifty sixty seventy eighty ninety",
    "de": "dreißig vierzig fünfzig sechzig siebzig achtzig neunzig",
}
_VALUES: dict[str, dict[str, int]] = {
    language: {fold(word): value for value, word in enumerate(listed.split(), 1)}
    | {fold(word): value * 10 for value, word in enumerate(_TENS.get(language, "").split(), 3)}
    for language, listed in _WORDS.items()
}


@dataclass(frozen=True)
class Number:
    """A number as written, the values it can mean, and for dates and lists the digits apart (`parts`)."""

    written: str
    values: frozenset[str]
    parts: frozenset[str] = frozenset()


def _value(digits: str) -> str:
    return format(Decimal(digits).normalize(), "f")


def _grouped(body: str, separator: str) -> bool:
    head, *groups = body.split(separator)
    return 1 <= len(head) <= 3 and head[0] != "0" and bool(groups) and all(len(group) == 3 for group in groups)


def _read(body: str, language: str) -> str | None:
    """The value of a number in that language's writing; None where it can be no number."""
    body = re.sub(rf"[{_SPACES}'’]", "", body)
    point, comma = (".", ",") if language in _POINT_DECIMAL else (",", ".")
    whole, sign, fraction = body.rpartition(point)
    if sign and fraction.isdigit() and (whole.isdigit() or _grouped(whole, comma)):
        return _value(f"{whole.replace(comma, '')}.{fraction}")
    if body.isdigit() or _grouped(body, comma):
        return _value(body.replace(comma, ""))
    if body.count(comma) == 1 and body.replace(comma, "").isdigit():  # the other language's decimal sign: 1.5 in German
        return _value(body.replace(comma, "."))
    return None


def _number(sign: str, body: str, language: str) -> Number:
    value = _read(body, language)
    minus = "-" if sign else ""
    single = body.isdigit() or (value is not None and not re.search(rf"[{_SPACES}'’:]", body))
    parts = frozenset() if single else frozenset(_value(digits) for digits in re.findall(r"\d+", body))
    return Number(sign + body, frozenset({minus + value} if value else {body}), parts)


def digits(text: str, language: str) -> list[Number]:
    """The numbers written in digits, in order."""
    clean = unicodedata.normalize("NFKC", text)
    return [_number(hit[1], hit[2], language) for hit in _NUMBER.finditer(clean)]


def spelled(text: str, language: str) -> list[Number]:
    """The numbers written as words. One is left out: in most languages it is an article or a pronoun too."""
    known, tens = _VALUES.get(language, {}), 0
    found: list[Number] = []
    for word in words(text):
        value = known.get(word, 0)
        if tens and 0 < value < 10:
            found[-1] = Number(f"{found[-1].written}-{word}", frozenset({str(tens + value)}))
        elif value > 1:
            found.append(Number(word, frozenset({str(value)})))
        tens = value if value >= 20 and value % 10 == 0 else 0
    return found


def supported(text: str, language: str) -> frozenset[str]:
    """Every value that a source vouches for: its numbers, with and without sign, and the parts of dates and ranges."""
    values: set[str] = set()
    for number in [*digits(text, language), *spelled(text, language)]:
        values |= number.values | {value.lstrip("-") for value in number.values} | number.parts
    known = _VALUES.get(language, {})
    values |= {str(known[word]) for word in words(text) if word in known}
    values |= {century + end for century, _, end in _SHORT_RANGE.findall(text)}
    return frozenset(values)


def unsupported(text: str, source: str, language: str) -> str:
    """The first number of `text` that `source` does not hold, as written; empty when it holds them all."""
    return _missing([*digits(text, language), *spelled(text, language)], supported(source, language))


def untranslated(text: str, values: Set[str], language: str) -> str:
    """The same where the source, whose values are given, is in another language. Only digits count: words for numbers
    are joined in other ways there (quatre-vingts, zweihundert), and some mean something else besides (neuf, sei)."""
    return _missing(digits(text, language), values)


def _missing(numbers: Iterable[Number], values: Set[str]) -> str:
    for number in numbers:
        if values.isdisjoint(number.values) and not (number.parts and number.parts <= values):
            return number.written
    return ""
