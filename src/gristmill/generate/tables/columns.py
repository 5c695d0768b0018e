"""The columns of a table as a recipe says them: how each is drawn, and what it depends on.

product: [lamp, kettle]                                   one of these
rating: {choice: [1, 2, 3], weights: [1, 1, 2], balanced: true}
price: {range: [4, 90], decimals: 2}                      a number
ordered: {date: [2024-01-01, 2024-12-31]}
shipped: {range: [1, 9], after: ordered}                  so many days (or so much) after another column
number: {serial: 1001}                                    counts up from there
buyer: {persona: {ages: [20, 70]}}                        a person in one sentence
title: "{{buyer}} about {{product}}"                      other columns in a text
mood: {given: rating, cases: {1: [angry], 2: [calm]}, otherwise: [glad]}
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, model_validator

from gristmill.core.prompt import Prompt

FIRST_DAY, LAST_DAY = datetime.date.min.toordinal(), datetime.date.max.toordinal()
LARGEST = 2**62
"""In size, of a number that is drawn or counted: a row holds 64 bits, and one number may come `after` another."""

Scalar = bool | int | FiniteFloat | str
Part = Literal["name", "age", "job", "place", "trait", "style"]


def _long_form(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return {"choice": value}
    return {"template": value} if isinstance(value, str) else value


def _said_as_text(value: Any) -> Any:
    """YAML reads 1 and true where a mapping's keys are compared as text."""
    return {text_of(key): inner for key, inner in value.items()} if isinstance(value, Mapping) else value


def text_of(value: Any) -> str:
    """A cell as a case of `cases` and a template spell it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def names_in(text: str) -> frozenset[str]:
    """The columns that a text names. ValueError for a {{…}} that would stay in it as it is."""
    prompt = Prompt("text", f"@user\n{text}")
    if "{{" in prompt.render(**dict.fromkeys(prompt.names, ""))[0].content:
        raise ValueError(f"a name in {{{{…}}}} is of the letters a to z, digits and _; not so in: {text[:80]}")
    return prompt.names


class Persona(BaseModel):
    """An invented person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: str = Field("en", pattern=r"^[a-z]{2}$", description="Of the name: en, de, fr, es; else a mix of them")
    ages: tuple[int, int] = Field((18, 80), description="Youngest and oldest, in years")
    parts: list[Part] = Field(
        default_factory=list, description="Parts in columns of their own, too: buyer_name, buyer_age, …"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not 0 <= self.ages[0] <= self.ages[1]:
            raise ValueError("`ages` goes from the youngest to the oldest")
        return self


class Column(BaseModel):
    """One column: exactly one of choice, range, date, serial, persona, template and given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: tuple[Scalar, ...] | None = Field(None, min_length=1, description="One of these")
    weights: tuple[FiniteFloat, ...] | None = Field(None, description="How often each choice comes, relatively")
    balanced: bool = Field(False, description="Each choice as often as its weight says, exactly; not drawn row by row")
    range: tuple[FiniteFloat, FiniteFloat] | None = Field(None, description="A number from … to …")
    decimals: int = Field(0, ge=0, le=9, description="Of a range; 0: whole numbers")
    after: str | None = Field(None, description="With range: so much more than that column, of a date so many days")
    date: tuple[datetime.date, datetime.date] | None = Field(None, description="A day from … to …")
    serial: int | None = Field(None, description="Counts up from here")
    persona: Persona | None = Field(None, description="An invented person, in one sentence")
    template: str | None = Field(None, min_length=1, description="Text with {{name}} for other columns")
    given: str | None = Field(None, description="With cases: the column that decides how this one is drawn")
    cases: Annotated[dict[str, AnyColumn], BeforeValidator(_said_as_text)] | None = Field(None, min_length=1)
    otherwise: AnyColumn | None = Field(None, description="With cases: what holds for every other value")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = ("choice", "range", "date", "serial", "persona", "template", "given")
        said = [way for way in ways if getattr(self, way) is not None]
        if len(said) != 1:
            raise ValueError(f"a column is one of {', '.join(ways)}; this one is {' and '.join(said) or 'none'}")
        owners = {"weights": "choice", "balanced": "choice", "decimals": "range", "after": "range"}
        owners |= {"cases": "given", "otherwise": "given"}
        for name in sorted(self.model_fields_set & owners.keys()):
            if owners[name] != said[0]:
                raise ValueError(f"{name} belongs to {owners[name]}, not to {said[0]}")
        self._check_values()
        return self

    def _check_values(self) -> None:
        whole = (number for number in self.choice or () if isinstance(number, int))
        if any(abs(number) > LARGEST for number in (*whole, *(self.range or ()), self.serial or 0)):
            raise ValueError(f"a number goes from -{LARGEST} to {LARGEST}")
        for low, high in filter(None, (self.range, self.date)):
            if low > high:  # type: ignore[operator]
                raise ValueError("the lower end stands first")
        if self.range is not None and self.steps()[0] > self.steps()[1]:
            raise ValueError(f"no number with {self.decimals} decimals lies in the range; say more `decimals`")
        if self.given is not None and self.cases is None:
            raise ValueError("`given` needs `cases`")
        if self.weights is not None and (
            len(self.weights) != len(self.choice or ()) or min(self.weights) < 0 or not sum(self.weights)
        ):
            raise ValueError("`weights` has one number of 0 or more for each choice")

    def steps(self) -> tuple[int, int]:
        """The range in units of the last decimal: the first and the last number that lies in it."""
        low, high = self.range or (0, 0)
        return math.ceil(low * 10**self.decimals), math.floor(high * 10**self.decimals)

    def refers(self) -> frozenset[str]:
        """The columns it depends on."""
        named = {name for name in (self.given, self.after) if name}
        return frozenset(named).union(names_in(self.template or ""), *(inner.refers() for inner in self.inner()))

    def inner(self) -> Iterator[Column]:
        yield from (self.cases or {}).values()
        if self.otherwise:
            yield self.otherwise

    def gives(self, name: str) -> list[str]:
        """The names it adds to a row."""
        return [name, *(f"{name}_{part}" for part in (self.persona.parts if self.persona else ()))]


AnyColumn = Annotated[Column, BeforeValidator(_long_form)]
Column.model_rebuild()


def in_order(columns: Mapping[str, Column]) -> list[str]:
    """The columns, each after those it depends on. ValueError where that cannot be."""
    owner: dict[str, str] = {}
    for name, column in columns.items():
        for given in column.gives(name):
            if given in owner:
                raise ValueError(f"two columns are called {given}")
            owner[given] = name
        if any(inner.balanced or (inner.persona and inner.persona.parts) for inner in column.inner()):
            raise ValueError(f"{name}: `balanced` and a persona's `parts` have no place inside `cases`")
    for name, column in columns.items():
        if unknown := sorted(column.refers() - owner.keys()):
            raise ValueError(f"{name} depends on {', '.join(unknown)}, which no column gives")
        if column.after and column.decimals and columns[owner[column.after]].date:
            raise ValueError(f"{name}: whole days follow a date; `decimals` does nothing")
    graph = {name: {owner[other] for other in sorted(column.refers())} for name, column in columns.items()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise ValueError(f"these columns depend on each other: {', '.join(error.args[1])}") from error
    days: dict[str, list[int]] = {}
    for name in order:
        days[name] = list(_days(name, columns[name], days))
    return order


def _days(name: str, column: Column, before: Mapping[str, list[int]]) -> Iterator[int]:
    """The ends of what it may draw as a date, in days of the calendar. ValueError for one that is beyond."""
    if column.date is not None:
        yield from (day.toordinal() for day in column.date)
    elif days := before.get(column.after or ""):
        ends = [math.trunc(step / 10**column.decimals) for step in column.steps()]
        if min(days) + ends[0] < FIRST_DAY or max(days) + ends[1] > LAST_DAY:
            raise ValueError(f"{name} leaves the calendar, which goes from {datetime.date.min} to {datetime.date.max}")
        yield from (min(days) + ends[0], max(days) + ends[1])
    for inner in column.inner():
        yield from _days(name, inner, before)
