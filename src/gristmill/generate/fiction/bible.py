"""One character, one set of traits: who returns in another chunk of a book is who he was.

Two cards are about the same character when their base names agree: the name without titles, epithets and numerals, in
lower case. A shorter base name ("Ilse") stands for a longer one ("Ilse Marren") where it can stand for no other. The
traits that count are those of the card made from the earliest place of the book.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from gristmill.core.records import Chunk, Draft, Record
from gristmill.core.stage import Dropped, PassContext, PassResult
from gristmill.generate.columns import require
from gristmill.generate.fiction.stages import BibleConfig

_HONORIFICS = """
    mr mrs ms miss mx dr doctor prof professor sir madam madame dame lord lady king queen prince princess duke duchess
    count countess baron baroness captain capt colonel major general lieutenant sergeant admiral commander master
    mistress father mother brother sister uncle aunt aunty old young little saint st reverend rev judge
    herr frau fräulein doktor graf gräfin könig königin prinz prinzessin kapitän onkel tante
    monsieur mademoiselle roi reine capitaine señor señora don doña
"""
_TITLES = frozenset(_HONORIFICS.split())
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


def run(config: BibleConfig, records: Iterable[Record], ctx: PassContext) -> PassResult:
    cards = [record for record in records if isinstance(record, Draft)]
    worlds: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for card in cards:
        if name := base_name(str(card.data.get(config.name, ""))):
            worlds[_world(config, card)][card.id] = name
    full = {world: _full_names(set(names.values())) for world, names in worlds.items()}
    who = {key: (world, full[world][name]) for world, names in worlds.items() for key, name in names.items()}
    first: dict[tuple[str, tuple[str, ...]], Draft] = {}
    for card in sorted(cards, key=lambda card: _place(card, ctx)):
        if card.id in who:
            first.setdefault(who[card.id], card)
    ctx.count(characters=len(first))
    for card in cards:
        yield _kept(config, card, first[who[card.id]], ctx) if card.id in who else Dropped(card, "no name")


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
