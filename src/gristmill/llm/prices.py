"""What a request costs, in whole nano-dollars, rounded up for each request.

Prices come from the recipe (`price:` of a model), else from `prices.json`: a table of hosts and models with its date
and its source, written by `.ci/prices.py`. A model is found by its whole name or not at all: the snapshot of another
day may cost three times as much, so nothing is guessed. What runs on this machine costs nothing unless priced.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import orjson

from gristmill.core.ask import Usage
from gristmill.core.errors import ConfigError
from gristmill.llm.spec import ModelSpec, PriceSpec, RemoteSpec

NANO = 1_000_000_000  # nano-dollars of a dollar
MILLION = 1_000_000

_SAME_HOST = {"api.together.ai": "api.together.xyz"}
_PREFIXES = {"generativelanguage.googleapis.com": "models/"}  # the server takes a model's name with it and without


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-dollars for a million tokens. Reasoning is output. `above`: requests with more input tokens cost `then`."""

    input: int = 0
    output: int = 0
    cached: int = 0  # input that a prompt cache served
    written: int = 0  # input put into the cache
    above: int = 0
    then: Price | None = None

    def cost(self, usage: Usage) -> int:
        """Of an answered request."""
        if self.then is not None and usage.input > self.above:
            return self.then.cost(usage)
        plain = usage.input - usage.cached - usage.written
        total = plain * self.input + usage.output * self.output
        return -(-(total + usage.cached * self.cached + usage.written * self.written) // MILLION)

    def most(self, tokens_in: int, tokens_out: int) -> int:
        """Of a request that may take so many tokens, if no cache serves any of it."""
        if self.then is not None and tokens_in > self.above:
            return self.then.most(tokens_in, tokens_out)
        return -(-(tokens_in * max(self.input, self.written) + tokens_out * self.output) // MILLION)


FREE = Price()


def price_of(spec: ModelSpec) -> Price | None:
    """Of a model as this recipe asks it (alone or in batches); None where nobody has said it."""
    if not isinstance(spec, RemoteSpec):
        return FREE
    if spec.price is not None:
        return _of_recipe(spec.price, in_batches=spec.batch is not None)
    host = urlsplit(spec.url()).hostname or ""
    host = _SAME_HOST.get(host, host)
    entry = _table().get(host, {}).get(_listed(host, spec.model))
    if entry is not None:
        return _of_table(entry, entry.get("batch", 1.0) if spec.batch is not None else 1.0)
    return FREE if on_this_machine(host) else None


def demand_price(role: str, spec: ModelSpec) -> Price:
    """The price that a budget in dollars needs, or the ConfigError that says how to give it."""
    price = price_of(spec)
    if price is None:
        name = spec.model if isinstance(spec, RemoteSpec) else role
        raise ConfigError(
            f"`budget.usd` needs the price of models.{role} ({name}): the price table of {table_version()} lacks it",
            f"Give it: `models.{role}.price: {{input: …, output: …}}`, in $ for a million tokens (0 where it costs "
            "nothing).",
        )
    return price


def on_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def table_version() -> str:
    """The day the table was made."""
    return str(_table()["version"])


@cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((files(__package__) / "prices.json").read_bytes())
    return found


def _listed(host: str, model: str) -> str:
    """A model's name as the table has it. A fine-tuned one costs what its base does when tuned: `ft:base:owner::id`."""
    if model.startswith("ft:"):
        return ":".join(model.split(":")[:2])
    return model.removeprefix(_PREFIXES.get(host, ""))


def _of_recipe(price: PriceSpec, *, in_batches: bool) -> Price:
    plain = price.model_dump(exclude_none=True, exclude={"batch"})
    return _of_table(plain, price.batch if in_batches else 1.0)


def _of_table(entry: dict[str, Any], share: float) -> Price:
    def nano(name: str) -> int:
        dollars: float = entry.get(name, entry["input"])
        return round(dollars * share * NANO)

    above = entry.get("above")
    then = _of_table({**entry, **above, "above": None}, share) if above else None
    tokens = above["tokens"] if above else 0
    return Price(nano("input"), nano("output"), nano("cached_input"), nano("cache_write"), tokens, then)
