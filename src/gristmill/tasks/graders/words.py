"""An answer as words that can be compared: one spelling of case, accents, quotes, numbers, units, dates; breaks kept.

Unicode is made one (NFKC), case folded, accents of Latin letters dropped, articles (a, an, the) and possessive 's left
out, "&" read as "and". Numbers are values: 1,842 = 1 842 = 1842 = "eighteen forty-two"; 3.50 = 3.5; "twelve" = 12;
third = 3rd. Units have one name (km = kilometers = kilometre; % = percent; $5 = 5 dollars) and are never converted.
12th of March, March 12 and 12 March are one date. Characters of scripts without spaces are words of their own.
"""

# ruff: noqa: SIM905  (word lists read best as sentences)
from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from gristmill.tasks.graders.numbers import read_number, scale_of

NONE, SOFT, HARD = 0, 1, 2

_CJK = r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"
_LETTER = r"(?:(?!" + _CJK + r")[^\W\d_]|[\u0300-\u036f\u0591-\u05bd\u064b-\u0652\u0900-\u0963\u0e31-\u0e4e])"
_TOKEN = re.compile(
    r"(?P<literal>\d{1,2}:\d{2}(?!\d)|\d+/\d+|\d+(?:\.\d+){2,})"
    r"|(?P<number>(?<!\w)-\d[\d,' ]*|\d{1,3}(?:[,' ]\d{3})+(?!\d)(?:\.\d+)?|\d+(?:[.,]\d+)?)(?P<nth>(?:st|nd|rd|th)\b)?"
    rf"|(?P<word>{_CJK}|{_LETTER}+(?:(?:'{_LETTER}+)+|\d\w*)?)"
)
_ABBREVIATION = re.compile(r"\b(dr|mr|mrs|ms|st|prof|rev|gen|capt|vol|no|ca|approx|[^\W\d])\.$", re.IGNORECASE)
_UNITS = {
    name: unit
    for unit, names in {
        "kilometre": "km kms kilometer kilometers kilometres",
        "metre": "m meter meters metres",
        "centimetre": "cm centimeter centimeters centimetres",
        "millimetre": "mm millimeter millimeters millimetres",
        "mile": "mi miles",
        "foot": "ft feet",
        "kilogram": "kg kgs kilo kilos kilograms kilogramme kilogrammes",
        "gram": "g grams gramme grammes",
        "tonne": "t tonnes ton tons",
        "pound": "lb lbs pounds",
        "litre": "l liter liters litres",
        "millilitre": "ml milliliter milliliters millilitres",
        "hour": "h hr hrs hours",
        "minute": "min mins minutes",
        "second": "s sec secs seconds",
        "day": "days",
        "week": "weeks",
        "month": "months",
        "year": "yr yrs years",
        "degree": "degrees deg",
        "percent": "pct",
        "dollar": "dollars usd",
        "euro": "euros eur",
    }.items()
    for name in names.split()
}
_MONTHS = frozenset("january february march april may june july august september october november december".split())
_ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class Word:
    """One word: how it compares, its value if it is a number, whether it was capitalised, what stands before it."""

    text: str
    value: Decimal | None = None
    capital: bool = False
    gap: int = NONE  # NONE: only space; SOFT: comma, slash, dash, bracket; HARD: end of a sentence or line
    slash: bool = False
    spelled: bool = False  # the number was a word

    @property
    def year(self) -> bool:
        return self.value is not None and self.value == int(self.value) and 1000 <= self.value < 2200


def read_words(text: str) -> list[Word]:
    """The words of a text, normalised. A text of nothing but articles keeps them."""
    raw = _scan(_tidy(text))
    words = _without_articles(raw) or raw
    return _dates(_units(_spelled(words)))


def _tidy(text: str) -> str:
    text = re.sub(r"(?<=\d)(?=[¼½¾⅐-⅞])", " ", text)
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"[‘’ʼ`´]", "'", text).replace("−", "-").replace("⁄", "/")
    text = re.sub(r"([$€£])\s?(\d[\d.,' ]*\d|\d)(\s(?:thousand|million|billion)\b)?", _money, text)
    text = re.sub(r"°\s?([CF])\b", r" degree \1", text).replace("°", " degree ")
    text = re.sub(r"(?i)\bper cent\b|%", " percent ", text).replace("&", " and ")
    text = re.sub(r"\b[Nn]o\.\s?(?=\d)", "number ", text)
    return re.sub(r"[*_#\"“”«»]", " ", re.sub(r"(?m)^[ \t]*[-*•][ \t]+", "", text))


def _money(hit: re.Match[str]) -> str:
    return f"{hit[2]}{hit[3] or ''} {({'$': 'dollar', '€': 'euro', '£': 'pound'})[hit[1]]} "


def _scan(text: str) -> list[Word]:
    words: list[Word] = []
    end = 0
    for hit in _TOKEN.finditer(text):
        between = text[end : hit.start()]
        gap = _gap(between, text[max(0, end - 12) : end]) if words else HARD
        slash = between.strip() in {"/", "|"}
        if hit["number"]:
            value = _value(hit["number"])
            ending = "th" if hit["nth"] else ""
            words.append(Word(f"{value:f}{ending}", None if ending else value, gap=gap, slash=slash))
        else:
            words += _word(hit["literal"] or hit["word"], gap, slash=slash)
        end = hit.end()
    return words


def _gap(between: str, before: str) -> int:
    if "\n" in between or re.search(r"[!?。！？]", between):
        return HARD
    if "." in between:
        return NONE if _ABBREVIATION.search(before + ".") else HARD
    return SOFT if re.search(r"[,;:/|()\[\]–—、，；]|\s-\s|--", between) else NONE


def _value(digits: str) -> Decimal:
    plain = re.sub(r"[' ]", "", digits)
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", plain):
        plain = plain.replace(",", "")
    value = Decimal(plain.rstrip(",").replace(",", "."))
    return value.normalize() if value != value.to_integral() else value.to_integral()


def _word(raw: str, gap: int, *, slash: bool) -> list[Word]:
    folded = "".join(_bare(c) for c in unicodedata.normalize("NFC", raw).casefold())
    capital = raw[0].isupper()
    if folded.endswith("n't") or folded == "cannot":
        stem = {"can't": "can", "won't": "will", "cannot": "can"}.get(folded, folded[:-3])
        return [Word(stem, capital=capital, gap=gap, slash=slash), Word("not")]
    return [Word(folded.removesuffix("'s").replace("'", ""), capital=capital, gap=gap, slash=slash)]


def _bare(character: str) -> str:
    """A Latin letter without its accents. In other scripts a mark can make another letter: kept."""
    parts = unicodedata.normalize("NFD", character)
    return parts[0] if len(parts) > 1 and ord(parts[0]) < 0x250 else character


def _without_articles(words: Sequence[Word]) -> list[Word]:
    kept: list[Word] = []
    gap, slash = NONE, False
    for word in words:
        letter = word.text == "a" and word.capital and word.gap != HARD  # Vitamin A
        if word.text in _ARTICLES and not letter:
            gap, slash = max(gap, word.gap), slash or word.slash
            continue
        kept.append(replace(word, gap=max(gap, word.gap), slash=slash or word.slash))
        gap, slash = NONE, False
    return kept


def _spelled(words: Sequence[Word]) -> list[Word]:
    """Number words as numbers, and digits before a scale word (3 million) as their product."""
    result: list[Word] = []
    at = 0
    while at < len(words):
        word = words[at]
        scale = scale_of(word.text) if result and result[-1].value is not None and word.gap == NONE else None
        if scale and not result[-1].spelled:
            value = (result[-1].value or Decimal(0)) * scale
            result[-1] = replace(result[-1], text=f"{value.normalize():f}", value=value)
            at += 1
            continue
        run = [word.text]
        run += [w.text for w in _until_gap(words[at + 1 : at + 16])]
        number = read_number(run, 0)
        unit = word.text == "second" and result and result[-1].value is not None
        if number is None or unit:
            result.append(word)
            at += 1
            continue
        text = f"{number.value}th" if number.ordinal else str(number.value)
        value_or_none = None if number.ordinal else Decimal(number.value)
        result.append(replace(word, text=text, value=value_or_none, capital=False, spelled=True))
        at += number.end
    return result


def _until_gap(words: Sequence[Word]) -> list[Word]:
    stop = next((i for i, w in enumerate(words) if w.gap != NONE), len(words))
    return list(words[:stop])


def _units(words: Sequence[Word]) -> list[Word]:
    return [
        replace(word, text=_UNITS.get(word.text, word.text))
        if before is not None and before.value is not None and word.gap == NONE
        else word
        for before, word in zip([None, *words], words, strict=False)
    ]


def _dates(words: Sequence[Word]) -> list[Word]:
    """`12th (of) march` and `march 12th` as `12 march`."""
    result = list(words)
    for at in range(len(result) - 1, -1, -1):
        if result[at].text not in _MONTHS:
            continue
        if at > 1 and result[at - 1].text == "of" and _day(result[at - 2]):
            del result[at - 1]
            at -= 1
        if at > 0 and (day := _day(result[at - 1])):
            result[at - 1] = replace(result[at - 1], text=str(day), value=Decimal(day))
        elif at + 1 < len(result) and result[at + 1].gap == NONE and (day := _day(result[at + 1])):
            number = replace(result[at + 1], text=str(day), value=Decimal(day), gap=result[at].gap)
            result[at : at + 2] = [number, replace(result[at], gap=NONE)]
    return result


def _day(word: Word) -> int:
    digits = word.text.removesuffix("th")
    return int(digits) if digits.isascii() and digits.isdigit() and 1 <= int(digits) <= 31 else 0
