"""Which language a text is in, by py3langid (naive Bayes over byte sequences, Lui and Baldwin 2012); whether two
languages are the same."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def identifier() -> Any:
    """The detector, loaded once: `classify` gives a language and its probability, `rank` all of them."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def known_as(language: str) -> str:
    """The detector's code of a language (`en` for `en-GB`); empty where it does not know it and can tell nothing."""
    code = language.lower().replace("_", "-").partition("-")[0]
    return code if code in identifier().labels else ""


def differ(one: str, other: str) -> bool:
    """Whether two languages are not the same (`en` and `en-GB` are); not where one of them is undetermined."""
    if one == other or "und" in (one, other):
        return False
    return (known_as(one) or one.lower()) != (known_as(other) or other.lower())
