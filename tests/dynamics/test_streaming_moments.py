"""Moments of chunks put together are those of everything at once, also where some trajectories have diverged."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lightball.dynamics.population.streaming import Accumulator

N, ARMS, OBSERVABLES = 300, ("a", "b", "c"), ("x", "y")


def values_with(offset: float, lost: float) -> tuple[np.ndarray, np.ndarray]:
    """(trajectory, arm, observable), correlated between arms; which are finite, (trajectory, arm)."""
    random = np.random.default_rng(0)
    values = random.standard_normal((N, 1, 2)) + random.standard_normal((N, 3, 2)) + offset
    finite = random.random((N, 3)) >= lost
    # What diverges is not like the others.
    finite &= ~((values[:, :, 0] > offset + 1) & (random.random((N, 3)) < lost))
    values[~finite] = np.nan
    return values, finite


def streamed(values: np.ndarray, finite: np.ndarray, bounds: list[int]):  # type: ignore[no-untyped-def]
    total = Accumulator(1, 3, 2, num_groups=7)
    for first, last in pairwise(bounds):
        seen = Accumulator(1, 3, 2, num_groups=7)
        seen.add(0, values[first:last], finite[first:last], first)
        total.merge(seen)
    return total.moments(np.array([0]), ARMS, OBSERVABLES, N)


@pytest.mark.parametrize("bounds", [[0, N], [0, 1, 2, 150, N], [*range(0, N + 1, 10)]])
@pytest.mark.parametrize(("offset", "lost"), [(0.0, 0.0), (0.0, 0.3), (1e6, 0.3)])
def test_pairs_of_arms_over_what_is_finite_in_both(bounds: list[int], offset: float, lost: float) -> None:
    values, finite = values_with(offset, lost)
    moments = streamed(values, finite, bounds)
    assert moments.diverged[:, 0].tolist() == (~finite).sum(axis=0).tolist()
    covariance = moments.covariance[0].reshape(3, 2, 3, 2)
    for a in range(3):
        np.testing.assert_allclose(moments.mean[a, 0], values[finite[:, a], a].mean(axis=0), rtol=1e-12)
        for b in range(3):
            both = finite[:, a] & finite[:, b]
            expected = np.cov(values[both, a].T, values[both, b].T)[:2, 2:]
            # Of numbers near 10⁶ with 16 digits, squares of differences keep 9.
            np.testing.assert_allclose(covariance[a, :, b, :], expected, atol=1e-8)


def test_groups_leave_out_what_has_diverged() -> None:
    values, finite = values_with(0.0, 0.3)
    moments = streamed(values, finite, [0, 40, N])
    assert moments.group_sizes.tolist() == [43] * 6 + [42]
    for group in range(7):
        for arm in range(3):
            alive = finite[group::7, arm]
            expected = values[group::7, arm][alive].mean(axis=0)
            np.testing.assert_allclose(moments.groups[group, arm, 0], expected, rtol=1e-12)


def test_where_all_have_diverged_moments_are_infinite() -> None:
    values, finite = values_with(0.0, 0.0)
    finite[:, 1] = False
    moments = streamed(values, finite, [0, 100, N])
    assert np.isposinf(moments.mean[1]).all()
    assert np.isposinf(moments.groups[:, 1]).all()
    assert np.isposinf(moments.covariance[0][2:4]).all()
    assert np.isfinite(moments.covariance[0][:2, :2]).all()
    assert all(np.isposinf(part).all() for part in moments.difference("a", "b"))


def test_variances_that_rounding_makes_negative_are_zero() -> None:
    values, finite = values_with(0.0, 0.0)
    moments = streamed(values, finite, [0, N])
    rounded = replace(moments, covariance=moments.covariance - np.diag([2.0 * moments.covariance[0, 0, 0], *[0] * 5]))
    assert rounded.covariance[0, 0, 0] < 0
    assert rounded.variance[0, 0, 0] == rounded.standard_error[0, 0, 0] == 0
    assert (rounded.variance[1:] == moments.variance[1:]).all()


def test_what_is_too_large_to_square_counts_as_diverged() -> None:
    values, finite = values_with(0.0, 0.0)
    values[0, 0] = 1e200
    moments = streamed(values, finite, [0, N])
    assert moments.diverged[:, 0].tolist() == [1, 0, 0]
    assert np.isfinite(moments.covariance).all()
