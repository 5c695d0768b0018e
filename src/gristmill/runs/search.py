"""`sweep:` of a recipe: which values its keys may take, and which of them are tried, in order.

The trials are a function of the sweep and its seed alone: whoever asks again gets the same ones, so that a sweep needs
no memory of its own. A random trial depends on its number and the key's name, and on no other key or trial.
"""

from __future__ import annotations

import random
import re
from collections.abc import Generator, Iterator
from itertools import product
from math import exp, log
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag, model_validator

from gristmill.core.errors import ConfigError
from gristmill.core.extras import install_line, missing
from gristmill.core.records import digest_of

SWEPT = ("stages", "models", "seed", "repeat")
"""Where a swept key may stand: what is elsewhere changes no result."""

_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")

LIST = "a list"
"""Name of the shortest way to write a key's values; no key of a recipe."""

Values = dict[str, Any]
"""One trial: swept key -> its value."""


class Choice(BaseModel):
    """Any of some values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choice: list[JsonValue] = Field(min_length=1)


class Range(BaseModel):
    """All numbers between two, both included; whole ones where both are whole."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    from_: int | float = Field(alias="from")
    to: int | float
    scale: Literal["linear", "log"] = Field("linear", description="log: each factor is as likely as any other")

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.from_ >= self.to:
            raise ValueError("`from` is below `to`")
        if self.scale == "log" and self.from_ <= 0:
            raise ValueError("on a log scale `from` is above 0")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.from_, int) and isinstance(self.to, int)

    def at(self, share: float) -> int | float:
        """The value so far along the range. Whole numbers get equal parts of it."""
        low, high = (self.from_ - 0.5, self.to + 0.5) if self.whole else (self.from_, self.to)
        value = exp(log(low) + share * (log(high) - log(low))) if self.scale == "log" else low + share * (high - low)
        return min(max(round(value), int(self.from_)), int(self.to)) if self.whole else value


def _way(written: Any) -> str:
    if isinstance(written, Choice | Range):
        return type(written).__name__
    if isinstance(written, list):
        return LIST
    return Choice.__name__ if isinstance(written, dict) and "choice" in written else Range.__name__


KeyValues = Annotated[
    Annotated[list[JsonValue], Field(min_length=1), Tag(LIST)]
    | Annotated[Choice, Tag("Choice")]
    | Annotated[Range, Tag("Range")],
    Discriminator(_way),
]


class Sweep(BaseModel):
    """Trials of a recipe that differ in the values of some keys, and what the best one is best at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = Field(description="What is compared: stage.name, such as tune.eval_loss or exam.tuned.accuracy")
    goal: Literal["min", "max"] = Field(description="Whether the least or the greatest is the best")
    by: Literal["grid", "random", "optuna"] = Field(
        "grid", description="grid tries every combination; random draws; optuna's TPE looks where it went well"
    )
    samples: int | None = Field(None, ge=1, le=10_000, description="Trials of random and optuna")
    seed: int | None = Field(None, ge=0, lt=2**63, description="Of the draws; the recipe's own, if not given")
    keys: dict[str, KeyValues] = Field(
        min_length=1, description="Dotted key -> [values], {choice: [values]} or {from, to, scale: linear or log}"
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        """A key set to null is removed, as everywhere under `extends`."""
        keys = data.get("keys") if isinstance(data, dict) else None
        return {**data, "keys": {k: v for k, v in keys.items() if v is not None}} if isinstance(keys, dict) else data

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        ranges = [key for key, values in self.keys.items() if isinstance(values, Range)]
        if self.by == "grid" and ranges:
            said = f"a grid takes lists of values, not the range of {ranges[0]}: set `by: random` and `samples`"
            raise ValueError(said)
        if (self.samples is None) != (self.by == "grid"):
            raise ValueError(
                "a grid tries all there are: `samples` belongs to random and optuna"
                if self.by == "grid"
                else f"{self.by} needs `samples`: how many to try"
            )
        for key in self.keys:
            if key.split(".")[0] not in SWEPT or "" in key.split("."):
                below = ", ".join(SWEPT)
                raise ValueError(f"`{key}` cannot be swept: name a value below {below}, such as stages.tune.steps")
            if above := next((other for other in self.keys if key.startswith(f"{other}.")), None):
                raise ValueError(f"`{key}` lies in `{above}`: sweep one of them")
        return self


def listed(sweep: Sweep, seed: int) -> list[Values] | None:
    """Every trial, each once; None where each depends on how those before it went."""
    if sweep.by == "optuna":
        return None
    made = _grid(sweep) if sweep.by == "grid" else _draws(sweep, seed)
    return list({digest_of(values): values for values in made}.values())


def corners(sweep: Sweep) -> list[Values]:
    """Trials that between them hold the ends of every range and every choice: if they are sound, all are."""
    ends = {key: _ends(values) for key, values in sweep.keys.items()}
    most = max(map(len, ends.values()))
    return [{key: values[min(i, len(values) - 1)] for key, values in ends.items()} for i in range(most)]


def proposals(sweep: Sweep, seed: int) -> Generator[Values, float | None, None]:
    """One trial after another. What is sent back is how it went by the metric; None: it did not come that far."""
    trials = listed(sweep, seed)
    if trials is None:
        yield from _by_optuna(sweep, seed)
        return
    for values in trials:  # noqa: UP028  (a list hears nothing of what is sent back)
        yield values


def written(value: Any) -> str:
    """A value as YAML on one line, as `--set` reads it."""
    import yaml

    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6)
    return text.removesuffix("...\n").strip()


def _choices(values: Any) -> list[Any]:
    """The values to choose from. 1e-3 is a number, though YAML 1.1, which wants 1.0e-3, reads text."""
    given = values.choice if isinstance(values, Choice) else values
    return [float(v) if isinstance(v, str) and _EXPONENT.fullmatch(v) else v for v in given]


def _ends(values: Any) -> list[Any]:
    return [values.from_, values.to] if isinstance(values, Range) else _choices(values)


def _grid(sweep: Sweep) -> Iterator[Values]:
    """The last key changes fastest."""
    for combination in product(*map(_choices, sweep.keys.values())):
        yield dict(zip(sweep.keys, combination, strict=True))


def _draws(sweep: Sweep, seed: int) -> Iterator[Values]:
    for number in range(sweep.samples or 0):
        yield {key: _drawn(values, random.Random(digest_of([seed, number, key]))) for key, values in sweep.keys.items()}


def _drawn(values: Any, rng: random.Random) -> Any:
    return values.at(rng.random()) if isinstance(values, Range) else rng.choice(_choices(values))


def _by_optuna(sweep: Sweep, seed: int) -> Generator[Values, float | None, None]:
    """Optuna's tree-structured Parzen estimator, seeded: the same answers bring the same proposals."""
    if missing("optuna"):
        raise ConfigError("`by: optuna` needs optuna, which is not installed", install_line("optuna"))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed % 2**32)
    study = optuna.create_study(sampler=sampler, direction="minimize" if sweep.goal == "min" else "maximize")
    for _ in range(sweep.samples or 0):
        trial = study.ask()
        went = yield {key: _suggested(trial, key, values) for key, values in sweep.keys.items()}
        failed = went is None or went != went
        study.tell(trial, None if failed else went, state=optuna.trial.TrialState.FAIL if failed else None)


def _suggested(trial: Any, key: str, values: Any) -> Any:
    if isinstance(values, Range):
        suggest = trial.suggest_int if values.whole else trial.suggest_float
        return suggest(key, values.from_, values.to, log=values.scale == "log")
    choices = _choices(values)
    return choices[trial.suggest_categorical(key, list(range(len(choices))))]  # any value, a list too, by its place
