"""Which language a text is in, among those people write handbooks in: the fewer to choose from, the better on short
texts."""

from __future__ import annotations

from functools import cache

# fmt: off
KNOWN = [
    "ar", "bg", "bn", "ca", "cs", "da", "de", "el", "en", "es", "et", "fa", "fi", "fr", "gu", "he", "hi", "hr",
    "hu", "hy", "id", "is", "it", "ja", "ka", "kk", "kn", "ko", "lt", "lv", "mk", "ml", "mr", "ms", "nl", "no",
    "pa", "pl", "pt", "ro", "ru", "sk", "sl", "sq", "sr", "sv", "ta", "te", "th", "tr", "uk", "ur", "vi", "zh",
]
# fmt: on
SAMPLE = 4000


@cache
def _prepare() -> None:
    import py3langid

    py3langid.set_languages(KNOWN)


def language_of(text: str) -> str:
    """ISO 639-1 of the text's beginning and middle; "und" where there are no letters to judge by."""
    import py3langid

    sample = text[:SAMPLE] + " " + text[len(text) // 2 : len(text) // 2 + SAMPLE] if len(text) > SAMPLE else text
    if not any(c.isalpha() for c in sample):
        return "und"
    _prepare()
    return str(py3langid.classify(sample)[0])
