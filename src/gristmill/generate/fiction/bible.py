"""One character, one set of traits: who returns in another chunk of a book is who he was.

Two cards are about the same character when their base names agree: the name without titles, epithets and numerals, in
lower case. A shorter base name ("Ilse") stands for a longer one ("Ilse Marren") where it can stand for no other. Where
a name has a title of men here and one of women there ("Mr Marren", "Mrs Marren"), the title tells who is meant. The
traits that count are those of the card made from the earliest place of the book.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from gristmill.core.records import Chunk, Draft, Record
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.generate.columns import require
from gristmill.generate.fiction.stages import BibleConfig

_OF_MEN = """
    mr sir lord king prince duke count baron father brother uncle master herr graf könig prinz onkel
    monsieur roi señor don
"""
_OF_WOMEN = """
    mrs ms miss madam madame dame lady queen princess duchess countess baroness mother sister aunt aunty mistress
    frau fräulein gräfin königin prinzessin tante mademoiselle reine señora doña
"""
_ANYBODYS = """
    mx dr doctor prof professor captain capt colonel major general lieutenant sergeant admiral commander
    old young little saint st reverend rev judge doktor kapitän capitaine
"""
_HIS, _HERS = frozenset(_OF_MEN.split()), frozenset(_OF_WOMEN.split())
_TITLES = _HIS | _HERS | frozenset(_ANYBODYS.split())
_ARTICLES = frozenset(["the", "a", "an", "der", "die", "das", "le", "la", "el"])
_ROMAN = re.compile(r"[ivx]+")
_EPITHET = re.compile(r",.*|\(.*?\)|[\"\u201c\u201e\u00ab].*?[\"\u201d\u201c\u00bb]|\s(?:the|of|der|le)\s.*", re.I)


def base_name(name: str) -> tuple[str, ...]:
    """Captain Ilse Marren II, the Grey -> (ilse, marren). A title without a name is told from others by all that is
    said of it: (count, of, berg)."""
    plain = unicodedata.normalize("NFKC", name).strip()
    return _named(_words(_EPITHET.sub(" ", plain))) or _words(plain)


def _words(text: str) -> tuple[str, ...]:
    words = re.findall(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*", text.casefold())
    return tuple(words[1:] if len(words) > 1 and words[0] in _ARTICLES else words)


def _named(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for word in words if word not in _TITLES and not (len(words) > 1 and _ROMAN.fullmatch(word)))


class Character(NamedTuple):
    world: str
    name: tuple[str, ...]  # the full base name
    title: str = ""  # his or hers, where the name alone may be two people


def run(config: BibleConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    cards = [record for record in records if isinstance(record, Draft)]
    characters = _characters(config, cards)
    first: dict[Character, Draft] = {}
    for card in sorted(cards, key=lambda card: _place(card, ctx)):
        if card.id in characters:
            first.setdefault(characters[card.id], card)
    ctx.count(characters=len(first))
    for card in cards:
        character = characters.get(card.id)
        yield _kept(config, card, first[character], ctx) if character else Dropped(card, "no name")


def _characters(config: BibleConfig, cards: list[Draft]) -> dict[str, Character]:
    """Whom each card is about, by the card's id; a card without a name is about nobody."""
    names = {card.id: str(card.data.get(config.name, "")) for card in cards}
    worlds: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for card in cards:
        if base := base_name(names[card.id]):
            worlds[_world(config, card)][card.id] = base
    found: dict[str, Character] = {}
    for world, bases in worlds.items():
        full = _full_names(set(bases.values()))
        found |= {key: Character(world, full[base]) for key, base in bases.items()}
    titles = {key: _title(names[key]) for key in found}
    his, hers = ({found[key] for key, title in titles.items() if title == whose} for whose in ("his", "hers"))
    return {key: who._replace(title=titles[key]) if who in his & hers else who for key, who in found.items()}


def _title(name: str) -> str:
    words = set(_words(name))
    if bool(words & _HIS) == bool(words & _HERS):
        return ""
    return "his" if words & _HIS else "hers"


def _world(config: BibleConfig, card: Draft) -> str:
    return str(card.data.get(config.within, "")) if config.within else ""


def _place(card: Draft, ctx: PassContext) -> tuple[str, int, str]:
    chunk = ctx.ancestor(card, Chunk)
    return (chunk.path, chunk.start, card.id) if chunk else ("", 0, card.id)


def _full_names(names: set[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """For each name of a world the longest that it is a part of, where there is only one such; else itself."""
    holding: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for name in names:
        for word in name:
            holding[word].add(name)
    full = {}
    for name in names:
        fuller = {other for other in set.intersection(*(holding[word] for word in name)) if set(name) < set(other)}
        longest = [one for one in fuller if not any(set(one) < set(other) for other in fuller)]
        full[name] = longest[0] if len(longest) == 1 else name
    return full


def _kept(config: BibleConfig, card: Draft, first: Draft, ctx: PassContext) -> Draft:
    traits = {name: first.data[name] for name in config.traits if name in first.data}
    if first is card or all(card.data.get(name) == value for name, value in traits.items()):
        return card
    ctx.count(**{"cards with the traits of an earlier one": 1})
    return Draft(
        kind=card.kind,
        data={**card.data, **traits},
        marks=card.marks,
        parents=(card.id, first.id),
        origin=card.origin,
    )


def fields(config: BibleConfig, _base: Path, before: frozenset[str] | None) -> frozenset[str] | None:
    """ConfigError where the cards cannot have what is named."""
    wanted = {config.name, *config.traits, *([config.within] if config.within else [])}
    require(wanted, before)
    return before
