"""Rules between the parts of an answer, or between them and the record: `paid <= price`, `left >= 2024-01-01`.

One comparison of a name with a name or a value: as numbers where both are, else as text, which is right for days
written 2024-12-31. A number has no order with a word; true and false are written so.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

_RULE = re.compile(r"\s*([A-Za-z_]\w*)\s*(<=|>=|==|!=|<|>)\s*(.+?)\s*")
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}


def _sound(rule: str) -> str:
    _parts(rule)
    return rule


Rule = Annotated[str, AfterValidator(_sound)]


def names_in(rule: str, known: Collection[str]) -> set[str]:
    """The names that a rule compares; what follows the sign is a name only where it is known as one."""
    name, _, other = _parts(rule)
    return {name, other} & {name, *known}


def _parts(rule: str) -> tuple[str, str, str]:
    hit = _RULE.fullmatch(rule)
    if hit is None:
        raise ValueError(f"a rule is a name, one of {' '.join(_COMPARED)}, and a name or value; not {rule!r}")
    return hit[1], hit[2], hit[3]


def check(rule: str, values: Mapping[str, Any]) -> None:
    """ValueError, in words for the model, where a rule does not hold."""
    name, sign, other = _parts(rule)
    if name not in values:
        raise ValueError(f"{rule}: there is no {name}")
    left, right = _value(values[name]), _value(values.get(other, other))
    if type(left) is not type(right):
        if sign not in ("==", "!="):
            raise ValueError(f"{rule}: {left!r} and {right!r} cannot be compared")
        left, right = str(left), str(right)
    if not _COMPARED[sign](left, right):
        raise ValueError(f"{rule} does not hold: {name} is {left}, {other} is {right}")


def _value(said: Any) -> float | str:
    """A number where it is one, else its text."""
    if isinstance(said, bool):
        return str(said).lower()
    try:
        return float(said)
    except (TypeError, ValueError):
        return str(said)
