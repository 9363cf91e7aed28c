"""The planned number of pairs against a literal search and its limits."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from lightball.stats import pairs_needed
from lightball.stats.planning import MOST_PAIRS

law = settings(deadline=None)  # a busy machine is not a failure


def literal(mean: float, deviation: float, margin: float, confidence: float) -> int:
    """The smallest n by trying each, with SciPy's quantile."""
    n = 2
    while scipy_stats.t.isf((1 - confidence) / 2, n - 1) * deviation / math.sqrt(n) >= abs(abs(mean) - margin):
        n += 1
    return n


@pytest.mark.parametrize(
    ("mean", "deviation"),
    [(0.0, 1.0), (0.5, 1.0), (0.8, 1.0), (-0.8, 1.0), (1.5, 1.0), (-3.0, 2.0), (2.0, 9.0)],
)
@pytest.mark.parametrize("confidence", [0.95, 1 - 0.025 / 8])
def test_agrees_with_trying_each_number(mean: float, deviation: float, confidence: float) -> None:
    assert pairs_needed(mean, deviation, 1.0, confidence) == literal(mean, deviation, 1.0, confidence)


def test_large_numbers_follow_the_normal_law() -> None:
    z = scipy_stats.norm.isf(0.025)
    assert pairs_needed(0.99, 1.0, 1.0, 0.95) == pytest.approx((z / 0.01) ** 2, rel=1e-3)


def test_two_pairs_decide_without_noise() -> None:
    assert pairs_needed(0.0, 0.0, 1.0, 0.95) == 2


@pytest.mark.parametrize("mean", [1.0, -1.0])
def test_none_where_the_mean_is_at_the_margin(mean: float) -> None:
    assert pairs_needed(mean, 1.0, 1.0, 0.95) is None
    assert pairs_needed(mean, 0.0, 1.0, 0.95) is None


def test_none_beyond_the_most_anyone_would_run() -> None:
    reach = scipy_stats.t.isf(0.025, MOST_PAIRS - 1) / math.sqrt(MOST_PAIRS)
    assert pairs_needed(1.0 + 1.0001 * reach, 1.0, 1.0, 0.95) is not None
    assert pairs_needed(1.0 + 0.9999 * reach, 1.0, 1.0, 0.95) is None
    assert pairs_needed(0.0, math.inf, 1.0, 0.95) is None


@law
@given(st.floats(0, 0.99), st.floats(0.01, 10), st.floats(1, 3))
def test_more_noise_never_takes_fewer_pairs(mean: float, deviation: float, factor: float) -> None:
    quiet, loud = (pairs_needed(mean, d, 1.0, 0.95) or math.inf for d in (deviation, factor * deviation))
    assert quiet <= loud
