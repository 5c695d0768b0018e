"""What calls cost: exact, in whole nano-dollars; and never guessed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.core.ask import Usage
from gristmill.core.errors import ConfigError
from gristmill.llm.prices import FREE, Price, demand_price, price_of, table_version
from gristmill.llm.spec import AnthropicSpec, LocalSpec, OpenAISpec

OPENAI, GEMINI = "https://api.openai.com/v1", "https://generativelanguage.googleapis.com/v1beta/openai"


def spec(model: str = "gpt-4o-mini", base_url: str = OPENAI, **more: Any) -> OpenAISpec:
    return OpenAISpec(provider="openai", model=model, base_url=base_url, **more)


def test_the_table_says_when_it_was_made() -> None:
    assert table_version() >= "2026-11-21"


@pytest.mark.parametrize(
    ("asked", "nano"),
    [
        (spec(), (150, 600, 75)),
        (spec("gpt-4o-mini-2024-07-18"), (150, 600, 75)),
        (spec(batch={}), (75, 300, 37.5)),
        (spec("ft:gpt-4o-mini-2024-07-18:acme::abc"), (300, 1200, 150)),
        (spec("models/gemini-2.5-flash", GEMINI), (300, 2500, 30)),
        (AnthropicSpec(provider="anthropic", model="claude-sonnet-4-5"), (3000, 15000, 300)),
        (spec(price={"input": 1, "output": 2}), (1000, 2000, 1000)),
        (spec(price={"input": 1, "output": 2, "cached_input": 0.1, "batch": 0.5}, batch={}), (500, 1000, 50)),
        (spec("any", "http://localhost:8000/v1"), (0, 0, 0)),
        (spec("any", "http://127.0.0.7:8000/v1"), (0, 0, 0)),
        (spec("any", "http://[::1]:8000/v1", price={"input": 1, "output": 1}), (1000, 1000, 1000)),
        (LocalSpec(provider="local", model="smollm2-135m-instruct"), (0, 0, 0)),
    ],
)  # fmt: skip
def test_a_price_is_found_by_host_and_whole_name(asked: Any, nano: tuple[float, float, float]) -> None:
    price = price_of(asked)
    assert price is not None
    assert (price.input / 1e6, price.output / 1e6, price.cached / 1e6) == nano


@pytest.mark.parametrize(
    "asked",
    [
        spec("gpt-4o-mini-2031-01-01"),  # a snapshot of another day may cost anything
        spec("gpt-4o-mini-turbo"),
        spec("GPT-4o-mini"),
        spec("gpt-4o-mini", "https://gateway.example.com/v1"),  # a reseller has prices of its own
        spec("any", "http://10.0.0.5:8000/v1"),
        spec("ft:unheard-of:acme::abc"),
    ],
)
def test_what_nobody_said_is_unknown_and_a_budget_in_dollars_asks_for_it(asked: OpenAISpec) -> None:
    assert price_of(asked) is None
    with pytest.raises(ConfigError, match=r"the price of models\.writer") as caught:
        demand_price("writer", asked)
    assert "models.writer.price: {input: " in caught.value.hint


def test_each_kind_of_token_has_its_price_and_reasoning_is_output() -> None:
    price = Price(input=3_000_000_000, output=15_000_000_000, cached=300_000_000, written=3_750_000_000)
    usage = Usage(input=1000, output=50, cached=600, written=100, reasoning=40)
    assert price.cost(usage) == 300 * 3000 + 600 * 300 + 100 * 3750 + 50 * 15000
    assert FREE.cost(usage) == 0


def test_a_cost_is_rounded_up_once_for_each_call() -> None:
    assert Price(input=1, output=0).cost(Usage(1, 0)) == 1
    assert Price(input=1_000_000, output=0).cost(Usage(7, 0)) == 7


def test_a_long_prompt_may_cost_more() -> None:
    price = price_of(spec("gemini-2.5-pro", GEMINI))
    assert price is not None
    assert price.cost(Usage(200_000, 0)) == 200_000 * 1250
    assert price.cost(Usage(200_001, 10)) == 200_001 * 2500 + 10 * 15_000


prices = st.builds(Price, *(st.integers(0, 10**11) for _ in range(4)))


@given(price=prices, tokens=st.tuples(*(st.integers(0, 10**6) for _ in range(4))), spare=st.integers(0, 1000))
def test_what_is_reserved_is_never_less_than_what_is_paid(
    price: Price, tokens: tuple[int, int, int, int], spare: int
) -> None:
    plain, cached, written, out = tokens
    price = Price(price.input, price.output, min(price.cached, price.input), price.written)  # a cache is no dearer
    sent = plain + cached + written
    assert price.cost(Usage(sent, out, cached=cached, written=written)) <= price.most(sent + spare, out + spare)
