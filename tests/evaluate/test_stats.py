"""Intervals and tests against published values."""

from __future__ import annotations

import pytest

from gristmill.core.intervals import wilson
from gristmill.evaluate.stats import Pairs, difference, sign_test


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right, n) == pytest.approx((low, high), abs=5e-5)


def test_sign_test() -> None:
    assert sign_test(1, 7) == sign_test(7, 1) == pytest.approx(0.0703, abs=5e-5)  # Bentur et al. 2009
    assert sign_test(0, 0) == 1.0
    assert sign_test(5, 5) == 1.0
    assert sign_test(0, 10) == pytest.approx(2 / 1024)


def test_paired_difference() -> None:
    # Bentur et al. 2009 as worked by Fagerland, Lydersen and Laake; then Altman et al. 2000, table 6.2
    assert difference(Pairs(1, 1, 7, 12)) == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert difference(Pairs(14, 5, 0, 22)) == pytest.approx((0.011, 0.226), abs=1.5e-3)
    assert difference(Pairs(0, 0, 0, 0)) == (-1.0, 1.0)


def test_a_difference_turned_round_is_its_mirror() -> None:
    low, high = difference(Pairs(10, 20, 3, 7))
    assert difference(Pairs(10, 3, 20, 7)) == pytest.approx((-high, -low))
