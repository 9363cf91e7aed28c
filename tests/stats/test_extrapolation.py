"""Limits of small learning rates: exact on polynomials, honest with noise."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightball.errors import InputError
from lightball.stats.extrapolation import extrapolate

ETAS = (0.4, 0.2, 0.1)


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=3), st.floats(1e-4, 1e4), st.booleans())
def test_a_quadratic_is_extrapolated_exactly(coefficients: list[float], scale: float, noisy: bool) -> None:
    a, b, c = coefficients
    etas = [scale * eta for eta in (*ETAS, 0.05)]
    values = [a + b * eta / scale + c * (eta / scale) ** 2 for eta in etas]
    limit = extrapolate(etas, values, [0.1, 0.2, 0.1, 0.3] if noisy else [0.0] * 4)
    assert limit is not None
    assert limit.value == pytest.approx(a, abs=1e-8)
    assert [v * scale**k for k, v in enumerate(limit.coefficients)] == pytest.approx([a, b, c], abs=1e-7)
    assert [limit.at(eta) for eta in etas] == pytest.approx(values, abs=1e-8)
    assert (limit.standard_error > 0) == noisy


def test_standard_error_at_halved_rates() -> None:
    # v₀ = (8 v(η) − 6 v(2η) + v(4η)) / 3
    limit = extrapolate(ETAS, [1.0, 2.0, 5.0], [0.3, 0.2, 0.1])
    assert limit is not None
    assert limit.value == pytest.approx((8 * 5 - 6 * 2 + 1) / 3)
    assert limit.standard_error == pytest.approx(math.hypot(8 * 0.1, 6 * 0.2, 0.3) / 3)
    assert limit.ci95 == pytest.approx(
        (limit.value - 1.959964 * limit.standard_error, limit.value + 1.959964 * limit.standard_error)
    )


def test_the_interval_holds_the_limit_in_95_of_100() -> None:
    # 2,000 intervals: a coverage outside (0.93, 0.97) has probability below 1e-4 where intervals are right.
    rng = np.random.default_rng(0)
    errors = np.array([0.02, 0.03, 0.05, 0.02])
    etas = np.array([0.4, 0.3, 0.2, 0.1])
    truth = 1 + 2 * etas - etas**2
    held = held_straight = 0
    for _ in range(2_000):
        values = truth + errors * rng.standard_normal(4)
        for degree in (1, 2):
            limit = extrapolate(etas.tolist(), values.tolist(), errors.tolist(), degree)
            assert limit is not None
            inside = limit.ci95[0] <= 1 <= limit.ci95[1]
            held, held_straight = held + inside * (degree == 2), held_straight + inside * (degree == 1)
    assert 0.93 < held / 2_000 < 0.97
    assert held_straight / 2_000 < 0.93  # control: a straight line through a bent curve


def test_few_or_infinite_values() -> None:
    line = extrapolate(ETAS, [math.inf, 3.0, 2.0], [math.inf, 0.1, 0.1])
    assert line is not None
    assert (line.value, len(line.coefficients)) == (pytest.approx(1.0), 2)
    assert extrapolate(ETAS, [math.inf, math.inf, 2.0], [0.1, 0.1, 0.1]) is None


@pytest.mark.parametrize(
    ("etas", "values", "message"),
    [
        ((0.1, 0.2), [1.0], "there are 2 rates, 1 values and 1 errors; required is one each"),
        ((0.1, 0.1), [1.0, 2.0], r"the rates are \[0.1, 0.1\]; required are different numbers > 0"),
        ((0.1, -0.1), [1.0, 2.0], r"the rates are \[0.1, -0.1\]; required are different numbers > 0"),
    ],
)
def test_bad_input(etas: tuple[float, ...], values: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        extrapolate(etas, values, [0.1] * len(values))
