"""Ticks are few, round and unambiguous, and the scale follows the data."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from figure_samples import rate, rates, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from lightball.report.figures import loss_by_rate
from lightball.report.figures.axes import (
    MOST_TICKS,
    at_batch_sizes,
    linear,
    log_or_linear,
    plain,
    scientific,
    symlog_or_linear,
    ticks_at,
    whole,
)
from lightball.report.figures.axes import texts as labels_of
from lightball.report.figures.data import brief

# What is left of the numbers of a table once they have five digits.
POSITIVE = st.floats(1e-269, 1e269).map(brief)
ANY = st.floats(-1e269, 1e269).map(brief).filter(lambda value: value is not None)
law = settings(deadline=None, derandomize=True, max_examples=300)


@law
@given(st.lists(POSITIVE, min_size=1, max_size=6))
def test_a_log_axis_has_two_to_seven_ticks_within_its_domain(values: list[float]) -> None:
    axis = log_or_linear("", values)
    assert axis.kind == "log"
    assert axis.low <= min(values)
    assert max(values) <= axis.high
    assert all(axis.low <= tick <= axis.high for tick in axis.ticks)
    assert 2 <= len(axis.ticks) <= MOST_TICKS
    assert len(set(labels_of(axis.ticks))) == len(axis.ticks)


@law
@given(st.lists(ANY, min_size=1, max_size=6))
def test_a_linear_axis_has_two_to_seven_ticks_within_its_domain(values: list[float]) -> None:
    axis = linear("", values)
    slack = 1e-9 * (axis.high - axis.low)
    assert 2 <= len(axis.ticks) <= MOST_TICKS
    assert all(axis.low - slack <= tick <= axis.high + slack for tick in axis.ticks)


@law
@given(st.lists(ANY, min_size=1, max_size=6), st.floats(1e-6, 1e3))
def test_a_symlog_axis_starts_beyond_its_reach_and_keeps_ticks_apart(values: list[float], constant: float) -> None:
    axis = symlog_or_linear("", values, constant, 8)
    assert (axis.kind == "symlog") == (max(map(abs, values)) > 8 * constant)
    assert 0.0 in axis.ticks
    if axis.kind == "symlog":
        along = [math.copysign(math.log1p(abs(tick) / constant), tick) for tick in axis.ticks]
        assert all(b - a > 0.08 * (along[-1] - along[0]) for a, b in pairwise(along))
        assert len(axis.ticks) >= 2


@pytest.mark.parametrize("values", [[0.1, 0.0], [0.1, -1.0]])
def test_values_that_are_not_positive_make_a_log_axis_linear(values: list[float]) -> None:
    assert log_or_linear("", values).kind == "linear"


def test_nulls_are_no_values() -> None:
    assert log_or_linear("", [None, 0.1, None, 1.0]) == log_or_linear("", [0.1, 1.0])
    assert log_or_linear("", [None]).ticks == log_or_linear("", []).ticks


def test_ticks_stand_at_the_rates_where_these_are_few_and_round() -> None:
    doubling = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6]
    assert ticks_at(log_or_linear("", doubling), doubling).ticks == tuple(doubling)
    crowded = [0.05 * 1.2**k for k in range(8)]
    assert ticks_at(log_or_linear("", crowded), crowded) == log_or_linear("", crowded)
    assert ticks_at(log_or_linear("", [0.1, 0.11, 10.0]), [0.1, 0.11, 10.0]).ticks != (0.1, 0.11, 10.0)


@pytest.mark.parametrize("etas", [(0.05, 0.1, 0.2, 0.4, 0.8, 1.6), (0.4, 0.8), (0.4,), (0.37, 0.39)])
def test_a_drawn_axis_of_rates_shows_at_least_two_labels(etas: tuple[float, ...]) -> None:
    shown = texts(loss_by_rate(rates([rate(0.0, eta, 0.1 * eta) for eta in etas])), "axis-label")
    numbers = [float(text) for text in shown]
    assert sum(min(etas) / 2.5 <= number <= 2.5 * max(etas) and number >= 0.05 for number in numbers) >= 2


def test_epochs_are_whole() -> None:
    assert whole(linear("", [0.0, 1.0], padding=0)).ticks == (0.0, 1.0)


def test_batch_sizes_are_ticks_and_the_domain_is_half_a_step_wider() -> None:
    axis = at_batch_sizes([32, 8, 128, 8])
    assert axis.ticks == (8, 32, 128)
    assert (axis.low, axis.high) == (4, 256)
    assert at_batch_sizes([8]).low < 8 < at_batch_sizes([8]).high
    assert at_batch_sizes([]).ticks == ()


@pytest.mark.parametrize(
    ("value", "text"), [(10_000, "10,000"), (0.05, "0.05"), (-3.0, "−3"), (0.0, "0"), (1e5, "100,000"), (2.5, "2.5")]
)
def test_numbers_in_full(value: float, text: str) -> None:
    assert plain(value) == text


@pytest.mark.parametrize(("value", "text"), [(1e-9, "10⁻⁹"), (-2e12, "−2×10¹²"), (1.5e7, "1.5×10⁷"), (1e100, "10¹⁰⁰")])
def test_numbers_as_powers_of_ten(value: float, text: str) -> None:
    assert scientific(value) == text


def test_long_labels_are_all_powers_of_ten() -> None:
    assert labels_of([0.001, 10.0, 10_000.0]) == ["0.001", "10", "10,000"]
    assert labels_of([1e-9, 1e-6, 1.0]) == ["10⁻⁹", "10⁻⁶", "1"]
    assert labels_of([-1.0, 100.0, 100_000.0]) == ["−1", "10²", "10⁵"]


def test_a_log_scale_of_vega_does_not_get_what_it_would_warn_of() -> None:
    assert set(log_or_linear("", [1.0, 2.0]).scale().to_dict()) == {"type", "domain", "nice"}
    assert set(symlog_or_linear("", [99.0], 1, 8).scale().to_dict()) == {"type", "domain", "nice", "constant"}
    assert linear("", [1.0, 2.0]).scale().to_dict()["zero"] is False
