"""Means with their intervals as text and bars, and what counts as agreement."""

from __future__ import annotations

import math

import pytest

from lightball.dynamics.weak_error import WeakError
from lightball.report.theory.agreement import held
from lightball.report.theory.numbers import told_apart, with_bars, with_interval


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.24863, 0.00134, "0.2486 ± 0.0013"),
        (-1.5, 0.25, "−1.50 ± 0.25"),
        (123.4, 45.0, "123 ± 45"),
        (0.24863624999999994, 3.4e-17, "0.248636 ± 0"),
        (0.0, 0.0, "0 ± 0"),
        (3.21e-9, 1.23e-10, "3.21e−09 ± 1.2e−10"),
        (1.234e12, 5.6e10, "1.23e+12 ± 5.6e+10"),
        (math.inf, math.inf, "diverges"),
        (1.0, math.nan, "diverges"),
    ],
)
def test_a_mean_has_two_digits_of_its_interval(mean: float, half: float, text: str) -> None:
    assert with_interval(mean, half) == text


def test_values_of_a_setting_are_told_apart() -> None:
    assert told_apart(0.5) == "0.5"
    assert told_apart(0.5 + 1e-9) == "0.500000001"
    assert told_apart(1 / 3) != told_apart(0.333333)


def test_bars_are_95_percent_and_what_diverged_is_not_drawn() -> None:
    series = with_bars("a", [1.0, 2.0], [3.0, math.inf], [0.5, math.inf])
    assert series.y == [3.0, None]
    assert series.low == [pytest.approx(3 - 1.96 * 0.5, abs=1e-4), None]
    assert series.high == [pytest.approx(3 + 1.96 * 0.5, abs=1e-4), None]


def count(exact: float, error: float, se: float) -> tuple[int, int]:
    return held([(WeakError((0.1, 0.2), (exact, 1.0), (0.0, 0.0)), WeakError((0.1,), (error,), (se,)))])


def test_what_is_held_and_what_is_counted() -> None:
    assert count(1.0, 1.19, 0.1) == (1, 1)
    assert count(1.0, 1.2, 0.1) == (0, 1)
    assert count(0.3, 0.1 + 0.2, 1e-18) == (1, 1)  # rounding
    assert count(1.0, 1.00001, 1e-18) == (0, 1)
    assert count(1.0, math.inf, math.inf) == (0, 1)
    assert count(math.inf, math.inf, math.inf) == (0, 0)
    assert count(1e200, math.inf, math.inf) == (0, 0)  # finite, but no trajectory reaches so far
    assert count(math.inf, 1.0, 0.1) == (0, 1)
    assert held([(WeakError((0.1,), (1.0,), (0.0,)), None)]) == (0, 0)
