"""Languages by ISO 639 code and by English name, as Unicode's CLDR lists them."""

from __future__ import annotations

import difflib
import re
from functools import cache
from typing import Annotated

from pydantic import AfterValidator

_NONE = frozenset({"mul", "und", "zxx"})  # several, undetermined, without words
_REGION = re.compile(r"(?:-[a-z0-9]{2,8})+")


@cache
def names() -> dict[str, str]:
    """English names, as prompts say them, by code: de, gsw, pt-br."""
    from babel import Locale

    listed: dict[str, str] = dict(Locale("en").languages)
    return {code.replace("_", "-").lower(): name for code, name in listed.items() if code not in _NONE}


@cache
def _codes() -> dict[str, str]:
    """Codes by English name, and by other codes of the same language: German and deu are de."""
    from babel.core import get_global

    known = names()
    others = {other.lower(): code for other, code in get_global("language_aliases").items() if code in known}
    return {**others, **{name.casefold(): code for code, name in known.items()}, **{code: code for code in known}}


def code_of(language: str) -> str:
    """The code of a language given by code or name; the text itself, in lower case, where neither is known."""
    tag = language.casefold().replace("_", "-")
    return _codes().get(tag, tag)


def _checked(language: str) -> str:
    code = code_of(language)
    base, known = code.partition("-")[0], _codes()
    if code in known or (base in names() and _REGION.fullmatch(code.removeprefix(base))):
        return language
    near = difflib.get_close_matches(language.casefold(), [name.casefold() for name in names().values()], n=1)
    meant = f"Did you mean {names()[known[near[0]]]}?" if near else "Give its ISO 639 code or its English name."
    raise ValueError(f"{language} is no language that is known by code (de, gsw, pt-BR) or name (German). {meant}")


WrittenIn = Annotated[str, AfterValidator(_checked)]
"""A language that a recipe names. What records say of theirs is free; a typing error in a recipe would be paid for."""
