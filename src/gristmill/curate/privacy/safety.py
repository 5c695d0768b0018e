"""Unsafe words and phrases, found as whole words, however they are disguised.

Compared are folded words: case and accents gone, signs read as the letters they stand for (`1d10t`), a star as any
letter, a stretched letter as one, and single letters with points between them as the word they spell. Where a script
has no spaces, a word is found wherever its letters stand. An answer that is rejected, or rated as undesirable, may say
what it likes: it is there as a bad one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path

from gristmill.core.errors import InputError, Reject
from gristmill.core.records import Record, Sample
from gristmill.core.stage import StepContext
from gristmill.curate.privacy.stages import SafetyConfig
from gristmill.curate.privacy.unsafe_words import UNSAFE
from gristmill.curate.words import UNSPACED, fold

_SIGNS = str.maketrans("013457@$!|", "oieastasii")
_LATIN, _SIGN = re.compile("[a-z]"), re.compile("[0-57@$!|]")
_SPELLED = re.compile(r"(?:[^\W\d_][.\-_]){3,}[^\W\d_]")
_LETTER = rf"[^\W\d_{UNSPACED}]"
_GAP = rf"(?:(?:{_LETTER}|[*'])++[^\w*']++){{0,3}}"
_BETWEEN = r"\W++"
"""Of words. What it has taken it keeps, as words and gaps do: a star is of a word or between words, and a long rule of
stars would be tried in every way."""


def plainly(text: str) -> str:
    """Folded, in letters and stars alone."""
    joined = _SPELLED.sub(lambda hit: re.sub(r"[.\-_]", "", hit[0]), text.replace("’", "'"))
    return re.sub(r"\S+", lambda hit: _read(hit[0]), fold(joined))


def _read(word: str) -> str:
    """Signs among letters as letters; one at the end is what it is."""
    if not (_SIGN.search(word) and _LATIN.search(word)):
        return word
    bare = word.rstrip("!|")
    return bare.translate(_SIGNS) + word[len(bare) :]


def _letters(word: str) -> str:
    """A word's pattern: each letter once or more; any but the first may hide behind a star."""
    ending = rf"(?:{_LETTER}|\*)*+" if word.endswith("~") else ""
    return "".join(
        re.escape(c) if not c.isalpha() else f"{c}+" if at == 0 else f"(?:{c}+|\\*)"
        for at, c in enumerate(fold(word).removesuffix("~"))
    ) + ending  # fmt: skip


def _phrase(line: str) -> str:
    parts = []
    for word in line.split():
        if word == "…":
            parts.append(_GAP)
        else:
            parts.append(f"(?:{'|'.join(map(_letters, word.split('|')))}){_BETWEEN}")
    return "".join(parts).removesuffix(_BETWEEN)


@cache
def pattern(lines: tuple[str, ...]) -> re.Pattern[str]:
    whole = "|".join(_phrase(line) for line in lines)
    return re.compile(rf"(?<!{_LETTER})(?<!\*)(?:{whole})(?!{_LETTER}|\*)")


def _stated(text: str) -> tuple[str, ...]:
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def patterns(config: SafetyConfig, base: Path) -> dict[str, re.Pattern[str]]:
    """By category."""
    found: dict[str, re.Pattern[str]] = {name: _known(name) for name in config.find}
    for name, path in config.lists.items():
        found[f"{name} (own list)" if name in found else name] = _own(base / path)
    return found


@cache
def _known(name: str) -> re.Pattern[str]:
    return pattern(_stated(UNSAFE[name]))


def _own(path: Path) -> re.Pattern[str]:
    """Read once for as long as the file is the same."""
    stat = path.stat()
    return _read_own(path, stat.st_mtime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=64)
def _read_own(path: Path, *_version: int) -> re.Pattern[str]:
    return pattern(_read_list(path))


def _read_list(path: Path) -> tuple[str, ...]:
    try:
        lines = _stated(path.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"the list {path.name} cannot be read: {error}", "Save it as UTF-8.") from error
    if not lines:
        raise InputError(f"the list {path.name} is empty", "One word or phrase a line.")
    for line in lines:
        if not all(part.removesuffix("~") for word in line.split() for part in word.split("|")):
            raise InputError(f"a line of the list {path.name} would meet every text: {line}", "Write `one|other`.")
    return lines


def unsafe(text: str, by: Mapping[str, re.Pattern[str]], allow: Iterable[str] = ()) -> Counter[str]:
    """How often each category is met."""
    plain, allowed = plainly(text), {fold(word) for word in allow}
    met: Counter[str] = Counter()
    for name, each in by.items():
        met[name] += sum(hit[0] not in allowed for hit in each.finditer(plain))
    return +met


def _texts(sample: Sample) -> list[str]:
    bad = {"assistant"} if sample.desirable is False else set[str]()
    return [sample.text, *(m.content for m in (*sample.messages, *sample.chosen) if m.role not in bad)]


def inputs(config: SafetyConfig, base: Path) -> list[Path]:
    return [base / path for path in config.lists.values()]


async def run(config: SafetyConfig, record: Sample, ctx: StepContext) -> list[Record]:
    met = unsafe("\n".join(_texts(record)), patterns(config, ctx.base), config.allow)
    if not met:
        return [record]
    if config.action == "drop":
        raise Reject("unsafe", ", ".join(sorted(met)))
    ctx.count(**{f"{name}, unsafe": 1 for name in met})
    return [record.marked(unsafe=dict(sorted(met.items())))]
