"""The terms a text is searched by: its words in lower case without accents; pairs of signs where no spaces are written.

No stemming: it needs a language, and the embeddings beside it know that a tower and towers are alike.
"""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")


def terms(text: str) -> list[str]:
    """Every term in reading order, repeats included."""
    found: list[str] = []
    for word in _WORD.findall(_folded(text)):
        if _UNSPACED.match(word):
            found += [word[n : n + 2] for n in range(max(1, len(word) - 1))]
        else:
            found.append(word)
    return found


def _folded(text: str) -> str:
    plain = unicodedata.normalize("NFKC", text).casefold()
    if plain.isascii():
        return plain
    bare = "".join(sign for sign in unicodedata.normalize("NFD", plain) if unicodedata.category(sign) != "Mn")
    return unicodedata.normalize("NFC", bare)
