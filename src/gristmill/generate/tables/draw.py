"""Rows drawn by seed, column after column. A cell depends on the seed, its column and its row's number alone: another
column or more rows change no cell that was there, save of a `balanced` column, which is dealt out over all rows, and of
a row that had to be drawn again."""

from __future__ import annotations

import datetime
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gristmill.core.errors import ConfigError
from gristmill.core.prompt import Prompt
from gristmill.core.records import Draft, Origin, Record, digest_of
from gristmill.core.stage import PassContext
from gristmill.generate.tables import personas
from gristmill.generate.tables.columns import LARGEST, Column, in_order, text_of
from gristmill.generate.tables.stages import TableConfig

AGAIN = 10_000  # draws of a row before the table is taken to have no other

Row = dict[str, Any]


def fields(config: TableConfig, _base: Path, _before: frozenset[str] | None) -> frozenset[str] | None:
    """The names of all columns."""
    return frozenset(name for column in config.columns for name in config.columns[column].gives(column))


def run(config: TableConfig, _records: Iterable[Record], ctx: PassContext) -> Iterator[Draft]:
    """A row that is there already is drawn again: the same row twice would be written about once."""
    order, dealt = in_order(config.columns), dict(_dealt(config, ctx))
    seen: set[str] = set()
    for number in range(config.rows):
        for draw in range(AGAIN):
            row = _row(config, order, dealt, number, (ctx.seed, ctx.stage, draw))
            if (made := digest_of(row)) not in seen:
                break
        else:
            raise ConfigError(
                f"the columns have no {config.rows} different rows: {len(seen)} were found, then none in {AGAIN} draws",
                "Lower `rows`, add choices, or add a column `number: {serial: 1}`, which makes every row its own.",
            )
        seen.add(made)
        named = {name: row[name] for column in config.columns for name in config.columns[column].gives(column)}
        yield Draft(kind="row", data=named, marks={"row": number + 1}, origin=Origin(stage=ctx.stage))


def _dealt(config: TableConfig, ctx: PassContext) -> Iterator[tuple[str, list[Any]]]:
    """Of each balanced column all its values, in an order by seed: as many of each as its weight is worth (largest
    remainders first)."""
    for name, column in config.columns.items():
        if not column.balanced or column.choice is None:
            continue
        weights = column.weights or (1.0,) * len(column.choice)
        exact = [config.rows * weight / sum(weights) for weight in weights]
        counts = [math.floor(share) for share in exact]
        rest = sorted(range(len(exact)), key=lambda at: counts[at] - exact[at])
        for at in rest[: config.rows - sum(counts)]:
            counts[at] += 1
        values = [value for value, count in zip(column.choice, counts, strict=True) for _ in range(count)]
        _rng(ctx.seed, ctx.stage, name).shuffle(values)
        yield name, values


def _row(
    config: TableConfig, order: list[str], dealt: Mapping[str, list[Any]], number: int, key: tuple[object, ...]
) -> Row:
    row: Row = {}
    for name in order:
        if name in dealt:
            row[name] = dealt[name][number]
        else:
            row |= _cells(name, config.columns[name], row, number, _rng(*key, name, number))
    return row


def _rng(*key: object) -> random.Random:
    return random.Random(digest_of([str(part) for part in key]))


def _cells(name: str, column: Column, row: Row, number: int, rng: random.Random) -> Row:
    """What one column adds to a row."""
    if column.given is not None:
        chosen = (column.cases or {}).get(text_of(row[column.given]), column.otherwise)
        if chosen is None:
            raise ConfigError(
                f"{name} has no case for {column.given} = {row[column.given]}",
                "Add the case, or `otherwise` for all others.",
            )
        return _cells(name, chosen, row, number, rng)
    if column.persona is not None:
        person = personas.draw(column.persona, rng)
        return {name: personas.sentence(person)} | {f"{name}_{part}": person[part] for part in column.persona.parts}
    return {name: _cell(name, column, row, number, rng)}


def _cell(name: str, column: Column, row: Row, number: int, rng: random.Random) -> Any:
    if column.choice is not None:
        return rng.choices(column.choice, column.weights)[0]
    if column.date is not None:
        first, last = column.date
        return (first + datetime.timedelta(days=rng.randint(0, (last - first).days))).isoformat()
    if column.serial is not None:
        return column.serial + number
    if column.range is not None:
        drawn = _number(column, rng)
        return drawn if column.after is None else _later(name, row[column.after], drawn, column)
    values = {given: text_of(value) for given, value in row.items()}
    return Prompt(name, f"@user\n{column.template}").render(**values)[0].content


def _number(column: Column, rng: random.Random) -> int | float:
    """Each number of so many decimals is equally likely, both ends included."""
    drawn = rng.randint(*column.steps())
    return round(drawn / 10**column.decimals, column.decimals) if column.decimals else drawn


def _later(name: str, value: Any, drawn: int | float, column: Column) -> Any:
    """So many days after a date, or so much more than a number."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        total = value + drawn
        if isinstance(total, int) and abs(total) >= 2 * LARGEST:
            raise ConfigError(f"{name} grows too large: {total}", f"Lower its `range`, or that of {column.after}.")
        return round(total, max(column.decimals, 9)) if isinstance(total, float) else total
    try:
        return (datetime.date.fromisoformat(str(value)) + datetime.timedelta(days=int(drawn))).isoformat()
    except OverflowError as error:
        raise ConfigError(
            f"{name} leaves the calendar: {drawn} days after {value}", f"Lower its `range`, or {column.after}."
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"{name} is to come after {column.after}, which is neither a number nor a date: {value!r}",
            "Name a column with range, date or serial.",
        ) from error
