"""The paired-t interval against closed forms, SciPy and its laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from lightball.stats import Interval, mean_and_standard_error, paired_t_interval
from lightball.stats.intervals import t_multiplier

confidences = st.floats(0.01, 0.9999)
samples = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40)
law = settings(deadline=None)  # a busy machine is not a failure


@law
@given(confidences)
def test_multiplier_of_two_pairs_is_the_cauchy_quantile(confidence: float) -> None:
    assert t_multiplier(confidence, 2) == pytest.approx(math.tan(math.pi * confidence / 2), rel=1e-9)


@law
@given(confidences)
def test_multiplier_of_three_pairs_has_a_closed_form(confidence: float) -> None:
    assert t_multiplier(confidence, 3) == pytest.approx(confidence * math.sqrt(2 / (1 - confidence**2)), rel=1e-9)


def test_multiplier_of_many_pairs_is_the_normal_quantile() -> None:
    assert t_multiplier(0.95, 10_000_000) == pytest.approx(1.959963984540054, rel=1e-6)


def test_mean_and_standard_error_by_hand() -> None:
    mean, standard_error = mean_and_standard_error([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    assert standard_error == pytest.approx(math.sqrt(5 / 12), rel=1e-15)


@pytest.mark.parametrize("n", [2, 6, 16, 64, 1000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 1 - 0.01 / 8])
def test_interval_agrees_with_scipy(n: int, confidence: float) -> None:
    differences = np.random.default_rng(n).normal(0.3, 2.0, n)
    ours = paired_t_interval(differences, confidence)
    theirs = scipy_stats.ttest_1samp(differences, 0.0).confidence_interval(confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert (ours.confidence, ours.n) == (confidence, n)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e300])
def test_equal_differences_give_a_degenerate_interval(value: float) -> None:
    assert paired_t_interval([value] * 7, 0.95) == Interval(value, value, value, 0.95, 7)


@law
@given(samples, confidences)
def test_negating_the_differences_mirrors_the_interval_exactly(sample: list[float], confidence: float) -> None:
    there, back = paired_t_interval(sample, confidence), paired_t_interval([-d for d in sample], confidence)
    assert (back.mean, back.low, back.high) == (-there.mean, -there.high, -there.low)


@law
@given(samples, confidences, confidences)
def test_more_confidence_never_narrows(sample: list[float], one: float, other: float) -> None:
    narrow, wide = (paired_t_interval(sample, c) for c in sorted((one, other)))
    assert wide.low <= narrow.low <= narrow.mean <= narrow.high <= wide.high


@pytest.mark.parametrize("exponent", [-1000, -600, 600, 1020])
def test_scaling_by_a_power_of_two_is_exact_where_squares_would_leave_the_range(exponent: int) -> None:
    sample = np.array([1.0, 2.0, 4.5, -0.25])
    mean, standard_error = mean_and_standard_error(sample)
    scaled = mean_and_standard_error(np.ldexp(sample, exponent))
    assert scaled == (math.ldexp(mean, exponent), math.ldexp(standard_error, exponent))
